"""What noised logits give away.

A row of logits is scaled to a Euclidean norm of at most C, then Gaussian noise of standard deviation z·C is
added to each logit. A client's answer to n public examples is one vector. Whatever its private data, each row
lies in a ball of radius C, so two possible answers differ by at most 2C√n: the mechanism is μ-Gaussian
differentially private with μ = 2√n / z, T answers together with μ√T, and

    δ(ε) = Φ(−ε/μ + μ/2) − e^ε Φ(−ε/μ − μ/2)

Balle, Wang, "Improving the Gaussian Mechanism for Differential Privacy", ICML 2018, theorem 8; Dong, Roth,
Su, "Gaussian Differential Privacy", JRSS-B 2022, corollary 3.3. The unit is a whole client, towards the
server (local privacy): ε bounds what an exchange of all of its private data would change. It covers the
logits, and not the accuracies and losses that a client reports for the sake of measuring.

Noise is drawn anew for each answer, so the mean of many answers to one question is better than each. A
client therefore counts every answer, whatever round, lineage or examples the question names: μ² of
several answers is the sum of theirs, and is kept in the client's state.
"""

import math

import torch
from flwr.app import MetricRecord, RecordDict
from torch import Tensor

from strategies.core import wire
from strategies.core.gaussian_mechanism import least_delta

ANSWERS = "fedmd-answers"
"""Name of the record in ``context.state`` that counts a client's noised answers."""
_SQUARED_MU = "squared-mu"
_MOST_BITS = 200


def clip_rows(logits: Tensor, clip: float) -> Tensor:
    """Return rows scaled down to a Euclidean norm of at most `clip`, shape [n, classes].

    Parameters
    ----------
    logits
        Shape [n, classes].
    clip
        Above 0; neutral 0, which leaves the rows as they are.
    """
    if clip == 0:
        return logits
    norms = torch.linalg.vector_norm(logits, dim=1, keepdim=True)  # [n, 1]
    scale: Tensor = clip / norms.clamp_min(clip)
    return logits * scale


def epsilon(noise: float, num_examples: int, answers: int, delta: float) -> float:
    """Return the ε of a client's answers, at δ; see the module's head.

    Parameters
    ----------
    noise
        z, in units of the clip norm; 0 gives ∞.
    num_examples
        Public examples per answer, at least 1.
    answers
        How many answers, at least 1.
    delta
        In (0, 1).
    """
    return math.inf if noise == 0 else epsilon_of(answers * squared_mu(noise, num_examples), delta)


def squared_mu(noise: float, num_examples: int) -> float:
    """Return μ² of one answer on some public examples, with z above 0; that of several adds up."""
    return 4.0 * num_examples / noise**2


def epsilon_of(squared: float, delta: float) -> float:
    """Return the ε of a μ-Gaussian mechanism at δ, by μ² above 0."""
    mu = math.sqrt(squared)
    low, high = 0.0, 1.0
    while least_delta(high, mu) > delta:
        high *= 2
    for _ in range(_MOST_BITS):
        middle = (low + high) / 2
        low, high = (middle, high) if least_delta(middle, mu) > delta else (low, middle)
    return high


def answered(state: RecordDict) -> float:
    """Return μ² of all answers that a client's state knows of."""
    record = state.metric_records.get(ANSWERS, MetricRecord())
    return dict(wire.iter_numbers(record)).get(_SQUARED_MU, 0.0)


def count_answer(state: RecordDict, noise: float, num_examples: int) -> float:
    """Count one more answer in a client's state, and return μ² of all.

    Parameters
    ----------
    state
        The client's ``context.state``, changed in place.
    noise
        z, above 0.
    """
    total = answered(state) + squared_mu(noise, num_examples)
    state[ANSWERS] = MetricRecord({_SQUARED_MU: total})
    return total

"""How unlike the clients of a federation are: figures that say, before training, what will be hard.

- Label divergence of a client: Jensen-Shannon divergence of its label distribution from that of all clients,
  in bits, in [0, 1]; 0 where they are the same.
- Gradient dissimilarity (Li et al., "Federated Optimization in Heterogeneous Networks", arXiv 1812.06127,
  Definition 3): B(w)² = Σ_k p_k ‖∇F_k(w)‖² / ‖∇f(w)‖², with f = Σ_k p_k F_k and p_k the clients' shares of
  the examples; at least 1, and 1 where all gradients are the same.
- Drift of a client: ‖δ_k − δ̄‖ / ‖δ̄‖, with δ_k what its local training of one round changes and
  δ̄ = Σ_k p_k δ_k; 0 where all go the same way.
- Imbalance of sizes, or of speeds: the largest over the median; 1 where all are the same.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from flwr.app import ArrayRecord
from torch import Tensor, nn

from strategies.client.training import summed_gradient
from strategies.core import wire
from strategies.core.examples import Examples
from strategies.models import travelling
from strategies.registry import PLAIN, all_traits
from strategies.task import CLASSIFICATION, Task

LOW_DIVERGENCE, HIGH_DIVERGENCE = 0.1, 0.4
"""Bits of label divergence, mean over the clients: below, nearly IID; above, far apart."""
HIGH_DISSIMILARITY = 4.0
"""B² above which the clients' gradients are mostly at odds."""
HIGH_DRIFT = 1.0
"""Mean drift above which a client differs from the average by more than the average itself."""
HIGH_IMBALANCE = 3.0
"""Largest over median above which one client dominates, or is waited for."""
SECONDS = "seconds"
"""float, client to server: how long the client's local training of a round takes, as measured."""


def gradient_answer(model: nn.Module, examples: Examples, task: Task = CLASSIFICATION) -> ArrayRecord:
    """Return the model plus the gradient of its mean loss on the examples, as a reply carries an update."""
    summed_gradient(model, [examples], [1.0 / len(examples)], task)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    state = {name: t.clone() for name, t in travelling.travelling(model).items()}
    return wire.record_of(
        {name: t + gradients[name] if name in gradients else t for name, t in state.items()}
    )


def label_divergence(counts: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return each client's Jensen-Shannon divergence from all clients together, in bits.

    Parameters
    ----------
    counts
        Examples of each class, by client-id; every client has at least one.

    Examples
    --------
    Two clients with a class each, against one half of each: ½·log₂(1/¾) + ½·(½·log₂(½/¾) + ½·log₂(½/¼)).

    >>> {i: round(d, 4) for i, d in label_divergence({"a": [4, 0], "b": [0, 4]}).items()}
    {'a': 0.3113, 'b': 0.3113}
    """
    pooled = [sum(column) for column in zip(*counts.values(), strict=True)]
    whole = [count / sum(pooled) for count in pooled]
    return {i: _jensen_shannon([c / sum(own) for c in own], whole) for i, own in counts.items()}


def _jensen_shannon(first: Sequence[float], second: Sequence[float]) -> float:
    middle = [(p + q) / 2 for p, q in zip(first, second, strict=True)]
    return (_kl(first, middle) + _kl(second, middle)) / 2


def _kl(first: Sequence[float], second: Sequence[float]) -> float:
    return sum(p * math.log2(p / q) for p, q in zip(first, second, strict=True) if p > 0)


def _weighted_mean(vectors: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    total = sum(weights[i] for i in vectors)
    parts = [vector.double() * (weights[i] / total) for i, vector in vectors.items()]
    return torch.stack(parts).sum(dim=0)


def gradient_dissimilarity(gradients: Mapping[str, Tensor], weights: Mapping[str, float]) -> float | None:
    """Return B²; None if the mean gradient is zero.

    Parameters
    ----------
    gradients
        Of each client's mean loss at the same model, shape [P], by client-id.
    weights
        The clients' numbers of examples.

    Examples
    --------
    (½·9 + ½·1) / ½²(3 − 1)² = 5 / 1:

    >>> gradient_dissimilarity({"a": torch.tensor([3.0]), "b": torch.tensor([-1.0])}, {"a": 1, "b": 1})
    5.0
    """
    total = sum(weights[i] for i in gradients)
    squares = sum(weights[i] / total * float(g.double() @ g.double()) for i, g in gradients.items())
    mean = _weighted_mean(gradients, weights)
    below = float(mean @ mean)
    return squares / below if below > 0 else None


def drifts(deltas: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, float]:
    """Return each client's drift; none where the average of the changes is zero.

    Parameters
    ----------
    deltas
        What a round of local training changes, shape [P], by client-id.
    weights
        The clients' numbers of examples.

    Examples
    --------
    >>> drifts({"a": torch.tensor([3.0]), "b": torch.tensor([1.0])}, {"a": 1, "b": 1})
    {'a': 0.5, 'b': 0.5}
    """
    mean = _weighted_mean(deltas, weights)
    length = float(mean.norm())
    return {i: float((d.double() - mean).norm()) / length for i, d in deltas.items()} if length > 0 else {}


def imbalance(values: Sequence[float]) -> float:
    """Return the largest over the median; 1 where nothing is known."""
    middle = statistics.median(values) if values else 0.0
    return max(values) / middle if middle > 0 else 1.0


@dataclass(frozen=True)
class Finding:
    """One figure of the diagnosis.

    Parameters
    ----------
    value
        Of the federation; None where it could not be measured.
    clients
        By client-id; empty where the figure has no such parts.
    unit
        Of the clients' values.
    scale
        One sentence: what the federation's value is measured in, and from where on it is high.
    threshold, threshold_name
        A line to read the clients' values against, and what it is; None: there is none.
    """

    name: str
    value: float | None
    clients: Mapping[str, float]
    advice: str
    unit: str = ""
    scale: str = ""
    threshold: float | None = None
    threshold_name: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The findings, and the faults of clients.

    `faults` has a line for each client that did not answer usefully.
    """

    findings: list[Finding]
    faults: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        figures = {
            f.name: {"value": f.value, "clients": dict(f.clients), "advice": f.advice} for f in self.findings
        }
        return {"figures": figures, "faults": self.faults}


@dataclass(frozen=True)
class Evidence:
    """The clients' replies.

    Parameters
    ----------
    label_counts
        Examples of each class, by client-id.
    gradients, deltas
        At the model that was sent, shape [P], by client-id.
    seconds
        Of a round's local training: on the simulated clock where there is one, else as measured.
    """

    label_counts: Mapping[str, Sequence[int]]
    gradients: Mapping[str, Tensor]
    deltas: Mapping[str, Tensor]
    seconds: Mapping[str, float]


def findings(evidence: Evidence) -> list[Finding]:
    """Return all figures, with the advice that they call for."""
    sizes = {i: float(sum(counts)) for i, counts in evidence.label_counts.items()}
    divergence = label_divergence(evidence.label_counts)
    drift = drifts(evidence.deltas, sizes)
    shown = [
        ("label divergence", statistics.fmean(divergence.values()), divergence),
        ("gradient dissimilarity", gradient_dissimilarity(evidence.gradients, sizes), {}),
        ("client drift", statistics.fmean(drift.values()) if drift else None, drift),
        ("size imbalance", imbalance(list(sizes.values())), sizes),
        ("speed imbalance", imbalance(list(evidence.seconds.values())), evidence.seconds),
    ]
    return [_finding(name, value, clients) for name, value, clients in shown]


def _finding(name: str, value: float | None, clients: Mapping[str, float]) -> Finding:
    unit, scale = _UNITS[name]
    threshold = _ADVICE[name][0] if clients else None
    threshold_name = "high, where it is the mean over the clients"
    if name.endswith("imbalance") and clients and threshold is not None:
        threshold *= statistics.median(clients.values())
        threshold_name = f"{HIGH_IMBALANCE:g} times the median"
    return Finding(name, value, clients, advice(name, value), unit, scale, threshold, threshold_name)


def advice(name: str, value: float | None) -> str:
    """Return one sentence on a figure."""
    if value is None:
        return "It could not be measured: the average over the clients is zero."
    if name == "label divergence" and LOW_DIVERGENCE < value <= HIGH_DIVERGENCE:
        helping = _helping("drift")
        return f"The clients differ in their labels: fewer local epochs, or {helping}, keep them together."
    high, calm, warning = _ADVICE[name]
    return warning if value > high else calm


def _helping(against: str) -> str:
    """Return the names of the algorithms that help against something, as a list in words."""
    return " or ".join(sorted(traits.name for traits in all_traits() if against in traits.helps))


_ADVICE: Mapping[str, tuple[float, str, str]] = {
    "label divergence": (
        HIGH_DIVERGENCE,
        f"The clients' labels are alike: plain {PLAIN} is a fair choice.",
        f"The clients' labels are far apart: expect a poor common model, and try {_helping('labels')}.",
    ),
    "gradient dissimilarity": (
        HIGH_DISSIMILARITY,
        "The gradients mostly agree: several local epochs save rounds.",
        "The gradients are at odds: take fewer local steps, a smaller learning rate, or "
        f"{_helping('drift')}.",
    ),
    "client drift": (
        HIGH_DRIFT,
        "Local training goes about the same way everywhere.",
        "Clients drift apart within a round: lower train.local-epochs or -learning-rate, or use "
        f"{_helping('drift')}.",
    ),
    "size imbalance": (
        HIGH_IMBALANCE,
        "No client has far more examples than the others.",
        "One client outweighs the others: the average, and its accuracy, are mostly about that one.",
    ),
    "speed imbalance": (
        HIGH_IMBALANCE,
        "No client is waited for long.",
        f"One client is waited for in every round: use {_helping('waiting')}, selection.over-selection or a "
        "deadline.",
    ),
}

_UNITS: Mapping[str, tuple[str, str]] = {
    "label divergence": (
        "bits",
        f"In bits, from 0 to 1, mean over the clients; above {LOW_DIVERGENCE:g} noticeable, above "
        f"{HIGH_DIVERGENCE:g} high.",
    ),
    "gradient dissimilarity": ("", f"At least 1, without a unit; above {HIGH_DISSIMILARITY:g} high."),
    "client drift": (
        "lengths of the mean change",
        f"In lengths of the clients' mean change, mean over the clients; above {HIGH_DRIFT:g} high.",
    ),
    "size imbalance": ("examples", f"The largest over the median; above {HIGH_IMBALANCE:g} high."),
    "speed imbalance": ("seconds", f"The slowest over the median; above {HIGH_IMBALANCE:g} high."),
}
"""Of the clients' values their unit; of the federation's what it is and from where on it is high."""

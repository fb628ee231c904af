"""RMIA: the robust membership attack, which needs but one or two reference models.

Zarifzadeh, Liu and Shokri, "Low-Cost High-Power Membership Inference Attacks" (ICML 2024, arXiv
2312.03262). p(x) is the probability that a model gives to the true label. The score of x under a model θ
is the share of population examples z, which nobody trained on, with

    [p(x | θ) / p(x)] / [p(z | θ) / p(z)] ≥ γ,

where p(x) and p(z) without a model are means over reference models. Here the references were trained
without x (they are retrainings), so that p(x) = ½ ((1 + a) p_out(x) + 1 − a) stands for the mean over
models with and without it.

An example that is still known scores higher than one that was never seen. The area under the curve is that
of the forgotten examples against unseen ones of the same kind; after retraining it is ½, up to chance.
"""

import numpy as np

from unlearning.audit.roc import Scores

GAMMA = 1.0
"""γ; the paper finds little difference from 1 to 2, and ratios of well-trained models rarely reach 2."""
OFFLINE = 0.3
"""a, as the paper has it for CIFAR-10."""
_SMALLEST = 1e-300


def scores(
    probabilities: Scores,
    references: Scores,
    population: Scores,
    population_references: Scores,
    *,
    gamma: float = GAMMA,
    offline: float = OFFLINE,
) -> Scores:
    """Return the score of each example under one model, from 0 to 1, shape [n].

    Parameters
    ----------
    probabilities, population
        p of the true label under the model: of the examples, shape [n], and of the population, shape [m].
    references, population_references
        The same under models trained without any of them, shapes [models, n] and [models, m].
    gamma
        γ, at least 1.
    offline
        a in [0, 1]; 1 takes the reference models' mean as it is.

    Raises
    ------
    ValueError
        If there is no reference or no population, γ is below 1, or a value is no probability.
    """
    if gamma < 1:
        raise ValueError(f"gamma is {gamma}, expected at least 1")
    if not len(references) or not len(population):
        raise ValueError(
            f"got {len(references)} reference models and a population of {len(population)}, expected at "
            "least 1 of each"
        )
    for part in (probabilities, references, population, population_references):
        if not bool(((part >= 0) & (part <= 1)).all()):
            raise ValueError("a probability is not within 0 and 1")

    def relative(given: Scores, under_references: Scores) -> Scores:
        mean = under_references.mean(axis=0)
        found: Scores = given / np.maximum(0.5 * ((1 + offline) * mean + 1 - offline), _SMALLEST)
        return found

    ours = relative(probabilities, references)
    theirs = np.sort(gamma * np.maximum(relative(population, population_references), _SMALLEST))
    found: Scores = np.searchsorted(theirs, ours, side="right") / len(theirs)
    return found

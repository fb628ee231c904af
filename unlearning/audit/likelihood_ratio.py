"""U-LiRA: whether forgotten examples can be told, one by one, from examples that were never trained on.

Hayes et al., "Inexact Unlearning Needs More Careful Evaluations to Avoid a False Sense of Privacy" (arXiv
2403.01218). Shadow models come in pairs that share a training seed: one was trained *with* the forgotten
examples and then forgot them by the audited method, the other was retrained *without* them. φ(x) of an
example is its margin, log p − log(1 − p). Where the method works, φ(x) has the same law in both. The score of
a model on x is the logarithm of the ratio of two normal densities, fitted to φ(x) in each of the two sets.

Each pair is judged by the moments of all *other* pairs. So if both laws are equal, the scores of the two
models of a pair have the same law as well, and the area under the curve within a pair is ½ in the mean,
exactly. To leave out the judged model alone would favour one side: the other of its pair would be judged by
moments with the first one's value in them.

Four things are reported. The *area under the curve* is the mean over pairs, with an interval by bootstrap
over pairs, as all examples of a model share one draw. The *p-value* is that of a permutation test: which of a
pair's models is called unlearned is swapped at random; that the laws are equal is all that is assumed. It
looks at two things together, the area and the *strongest single example*: a few that are known by heart do
not move an area over hundreds. *Rates at few false alarms* are over all pairs. *Examples* are ranked by how
far their two laws lie apart.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearning.audit.roc import Scores, areas, balanced_accuracy, true_positive_rate

OWN_VARIANCES = 64
"""From so many pairs on, each example has variances of its own; below, one for all examples of a side."""
LEAST_PAIRS = 3
DRAWS = 999
"""Samples of a bootstrap, and random swaps for each test that shares a level."""
FALSE_POSITIVES = (0.01, 0.05)
_SMALLEST_VARIANCE = 1e-12
_ROUNDING = 1e-9
"""Values of the permutation test that differ by no more are equal."""
_MOST_NUMBERS = 2_000_000
"""Margins whose swaps are judged at once."""


@dataclass(frozen=True)
class Rate:
    """A figure with its interval.

    Parameters
    ----------
    value, low, high
        The figure, and the ends of its 95 % interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Exposure:
    """How far the two laws of one example's φ lie apart.

    Parameters
    ----------
    index
        Its place among the forgotten examples.
    effect
        |μ_unlearned − μ_retrained| in units of the pooled standard deviation of both.
    direction
        Mean φ under unlearned models less that under retrained ones: above 0 it is still known, below 0 it is
        known less than what was never seen, which tells as much.
    """

    index: int
    effect: float
    direction: float


@dataclass(frozen=True)
class LikelihoodRatios:
    """What the attack found.

    Parameters
    ----------
    pairs, examples
        How many pairs of models, and how many examples.
    area
        Under the curve; ½ is guessing.
    p_value
        Probability under equal laws of an area, or of a difference on a single example, as far out as the one
        of the two that is further out; it holds for both together.
    area_p_value, single_p_value
        The same of each of the two alone.
    least_p_value
        The smallest that so few pairs could give.
    accuracy
        Balanced, at a ratio of 1.
    rates
        Share of true positives by the share of false ones; None where there are too few negatives.
    most_exposed
        The examples whose laws lie furthest apart.
    """

    pairs: int
    examples: int
    area: Rate
    p_value: float
    area_p_value: float
    single_p_value: float
    least_p_value: float
    accuracy: Rate
    rates: dict[float, Rate | None]
    most_exposed: tuple[Exposure, ...]

    def in_sums(self) -> "LikelihoodRatios":
        """Return the findings without anything of a single example."""
        return replace(self, most_exposed=())

    def to_json(self) -> dict[str, Any]:
        """Return the findings as a mapping that `json` can write."""
        rates = {
            f"true-positives-at-{share:g}": None if rate is None else asdict(rate)
            for share, rate in self.rates.items()
        }
        found = {key: value for key, value in asdict(self).items() if key != "rates"}
        return {**found, **rates}


def likelihood_ratios(
    unlearned: Scores,
    retrained: Scores,
    generator: np.random.Generator,
    *,
    draws: int = DRAWS,
    tests: int = 1,
    most: int = 10,
    rates: Sequence[float] = FALSE_POSITIVES,
) -> LikelihoodRatios:
    """Attack pairs of models.

    Parameters
    ----------
    unlearned, retrained
        φ of the forgotten examples, shape [pairs, examples]; row k of the two shares a training seed.
    generator
        Draws what is swapped, and the bootstrap.
    draws
        Samples of the bootstrap, and random swaps for each test; where there are no more different ones than
        that, each is made once.
    tests
        How many there are that share a level, of which this is one.
    most
        How many of the most exposed examples are named.
    rates
        Shares of false positives at which true ones are counted.

    Raises
    ------
    ValueError
        If the two have different shapes, there are fewer than three pairs or no example, or a value is not
        finite.
    """
    _check(unlearned, retrained)
    pairs, examples = unlearned.shape
    ours, theirs = ratios(unlearned, retrained)
    by_pair = areas(ours, theirs)
    by_area, by_single, joint, least = _permutation(unlearned, retrained, generator, draws * tests)
    chosen = generator.integers(0, pairs, (draws, pairs))

    def rate(of: Any) -> Rate | None:
        value = of(ours, theirs)
        if value is None:
            return None
        low, high = np.quantile([of(ours[rows], theirs[rows]) for rows in chosen], [0.025, 0.975])
        return Rate(value, float(low), float(high))

    accuracy = rate(balanced_accuracy)
    if accuracy is None:
        raise ValueError("there is an accuracy wherever there is an example")
    return LikelihoodRatios(
        pairs,
        examples,
        _interval(by_pair, chosen),
        joint,
        by_area,
        by_single,
        least,
        accuracy,
        {share: rate(lambda a, b, s=share: true_positive_rate(a, b, s)) for share in rates},
        exposures(unlearned, retrained)[:most],
    )


def ratios(unlearned: Scores, retrained: Scores) -> tuple[Scores, Scores]:
    """Return log N(φ; unlearned) − log N(φ; retrained) of both models of each pair, shape [pairs, examples].

    The moments are those of all other pairs; variances are unbiased. Further axes may come first.
    """
    centre = 0.5 * (unlearned + retrained).mean(axis=-2, keepdims=True)
    ours, theirs = unlearned - centre, retrained - centre
    (mean_u, var_u), (mean_r, var_r) = _moments_of_others(ours), _moments_of_others(theirs)

    def ratio(values: Scores) -> Scores:
        return _log_density(values, mean_u, var_u) - _log_density(values, mean_r, var_r)

    return ratio(ours), ratio(theirs)


def ratios_of(margins: Scores, unlearned: Scores, retrained: Scores) -> Scores:
    """Return the score of one further model, such as the audited one, on each example, shape [examples]."""
    centre = np.concatenate([unlearned, retrained]).mean(axis=0)
    (mean_u, var_u), (mean_r, var_r) = _moments(unlearned - centre), _moments(retrained - centre)
    values = margins - centre
    found: Scores = _log_density(values, mean_u, var_u) - _log_density(values, mean_r, var_r)
    return found


def exposures(unlearned: Scores, retrained: Scores) -> tuple[Exposure, ...]:
    """Return all examples, the most exposed first."""
    difference = unlearned.mean(axis=0) - retrained.mean(axis=0)
    variances = unlearned.var(axis=0, ddof=1) + retrained.var(axis=0, ddof=1)
    effects = np.abs(difference) / np.sqrt(np.maximum(variances / 2, _SMALLEST_VARIANCE))
    order = np.argsort(-effects, kind="stable")
    return tuple(Exposure(int(i), float(effects[i]), float(difference[i])) for i in order)


def _check(unlearned: Scores, retrained: Scores) -> None:
    if unlearned.shape != retrained.shape or unlearned.ndim != 2:
        raise ValueError(
            f"got margins of shapes {unlearned.shape} and {retrained.shape}, expected [pairs, examples] twice"
        )
    pairs, examples = unlearned.shape
    if pairs < LEAST_PAIRS or not examples:
        raise ValueError(
            f"got {pairs} pairs of models and {examples} examples, expected at least {LEAST_PAIRS} and 1"
        )
    if not (np.isfinite(unlearned).all() and np.isfinite(retrained).all()):
        raise ValueError("a margin is not finite")


def _moments_of_others(values: Scores) -> tuple[Scores, Scores]:
    """Return mean and variance over all other rows, for each row, shapes [pairs, examples] or [pairs, 1]."""
    count = values.shape[-2] - 1
    means = (values.sum(axis=-2, keepdims=True) - values) / count
    squares = (values**2).sum(axis=-2, keepdims=True) - values**2
    variances = (squares - count * means**2) / max(count - 1, 1)
    return means, _pooled(variances, count)


def _moments(values: Scores) -> tuple[Scores, Scores]:
    """Return mean and variance over all rows, for a single further one, shape [1, examples] or [1, 1]."""
    variances = values.var(axis=0, ddof=1)[None]
    return values.mean(axis=0)[None], _pooled(variances, len(values))


def _pooled(variances: Scores, count: int) -> Scores:
    if count < OWN_VARIANCES:
        variances = variances.mean(axis=-1, keepdims=True)
    return np.maximum(variances, _SMALLEST_VARIANCE)


def _log_density(values: Scores, mean: Scores, variance: Scores) -> Scores:
    found: Scores = -0.5 * ((values - mean) ** 2 / variance + np.log(variance))
    return found


def _permutation(
    unlearned: Scores, retrained: Scores, generator: np.random.Generator, draws: int
) -> tuple[float, float, float, float]:
    """Return p-values of the area, of the strongest example, and of both; and the smallest there can be.

    To swap all pairs gives the same as to swap none, so there are 2^(pairs − 1) different ways. The p-value
    of both is that of the smaller of the two, which every way of swapping has as well; of equal ones that
    with the larger area is further out, so that the area alone can reach the smallest p-value.
    """
    swaps = _swaps(len(unlearned), generator, draws)
    block = max(1, _MOST_NUMBERS // unlearned.size)
    blocks = [swaps[start : start + block] for start in range(0, len(swaps), block)]
    by_area = _p_values(np.concatenate([_swapped_areas(unlearned, retrained, rows) for rows in blocks]))
    by_single = _p_values(np.concatenate([_strongest(unlearned - retrained, rows) for rows in blocks]))
    both = _p_values(-np.minimum(by_area, by_single) - by_area / (2 * len(swaps)))
    return float(by_area[0]), float(by_single[0]), float(both[0]), 1 / len(swaps)


def _swapped_areas(unlearned: Scores, retrained: Scores, swaps: NDArray[np.bool_]) -> Scores:
    """Return the mean area over pairs for each way to swap them, shape [ways]."""
    rows = swaps[:, :, None]
    ours, theirs = ratios(np.where(rows, retrained, unlearned), np.where(rows, unlearned, retrained))
    by_pair = areas(*(side.reshape(-1, side.shape[-1]) for side in (ours, theirs)))
    found: Scores = by_pair.reshape(len(swaps), -1).mean(axis=1)
    return found


def _strongest(differences: Scores, swaps: NDArray[np.bool_]) -> Scores:
    """Return the largest mean difference of an example, in units of its size, by way to swap, shape [ways].

    The size does not change when pairs are swapped: half is the example's own mean square, half that of all.
    """
    squares = (differences**2).mean(axis=0)
    size = np.sqrt(np.maximum(0.5 * (squares + squares.mean()), _SMALLEST_VARIANCE))
    means = np.where(swaps, -1.0, 1.0) @ differences / len(differences)
    found: Scores = (np.abs(means) / size).max(axis=1)
    return found


def _p_values(found: Scores) -> Scores:
    """Return for each of equally likely values the share that is at least as large, up to rounding."""
    ordered = np.sort(found)
    shares: Scores = (len(found) - np.searchsorted(ordered, found - _ROUNDING)) / len(found)
    return shares


def _swaps(pairs: int, generator: np.random.Generator, draws: int) -> NDArray[np.bool_]:
    """Return which pairs to swap, shape [ways, pairs]: each different way once, or none and random ones."""
    if (ways := num_swaps(pairs, draws)) == 1 << (pairs - 1):
        return (np.arange(ways)[:, None] >> np.arange(pairs)) & 1 > 0
    drawn = generator.random((draws, pairs)) < 0.5
    return np.concatenate([np.zeros((1, pairs), dtype=np.bool_), drawn])


def num_swaps(pairs: int, draws: int) -> int:
    """Return how many ways to swap pairs a test looks at, the one that swaps none included.

    >>> num_swaps(8, 999), num_swaps(16, 999)
    (128, 1000)
    """
    return min(1 << (pairs - 1), draws + 1)


def _interval(values: Scores, chosen: NDArray[np.int64]) -> Rate:
    """Return a mean over pairs, with the interval of a bootstrap over pairs."""
    low, high = np.quantile(values[chosen].mean(axis=1), [0.025, 0.975])
    return Rate(float(values.mean()), float(low), float(high))

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
over pairs, as all examples of a model share one draw. Its *p-value* is that of a permutation test: which of a
pair's models is called unlearned is swapped at random; that the laws are equal is all that is assumed.
*Rates at few false alarms* are over all pairs. *Examples* are ranked by how far their two laws lie apart.
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
FALSE_POSITIVES = (0.01, 0.05)
_SMALLEST_VARIANCE = 1e-12
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
        Probability of an area as far from ½ under equal laws.
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
    draws: int = 999,
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
    p_value, least = _permutation(unlearned, retrained, float(by_pair.mean()), generator, draws * tests)
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
        p_value,
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
    unlearned: Scores, retrained: Scores, found: float, generator: np.random.Generator, draws: int
) -> tuple[float, float]:
    """Return the p-value of an area, and the smallest that so many pairs can give.

    To swap all pairs gives the same area as to swap none, so there are 2^(pairs − 1) different ones.
    """
    swaps, is_all = _swaps(len(unlearned), generator, draws)
    as_far = 0
    block = max(1, _MOST_NUMBERS // unlearned.size)
    for start in range(0, len(swaps), block):
        rows = swaps[start : start + block, :, None]
        ours, theirs = ratios(np.where(rows, retrained, unlearned), np.where(rows, unlearned, retrained))
        by_pair = areas(*(side.reshape(-1, side.shape[-1]) for side in (ours, theirs)))
        as_far += int(np.sum(by_pair.reshape(-1, len(unlearned)).mean(axis=1) >= found - 1e-12))
    if is_all:  # the one that swaps nothing is among them
        return as_far / len(swaps), 1 / len(swaps)
    return (as_far + 1) / (len(swaps) + 1), 1 / (len(swaps) + 1)


def _swaps(pairs: int, generator: np.random.Generator, draws: int) -> tuple[NDArray[np.bool_], bool]:
    """Return which pairs to swap, shape [ways, pairs], and whether these are all different ways."""
    ways = 2 ** (pairs - 1)
    if ways <= draws:
        return (np.arange(ways)[:, None] >> np.arange(pairs)) & 1 > 0, True
    return generator.random((draws, pairs)) < 0.5, False


def _interval(values: Scores, chosen: NDArray[np.int64]) -> Rate:
    """Return a mean over pairs, with the interval of a bootstrap over pairs."""
    low, high = np.quantile(values[chosen].mean(axis=1), [0.025, 0.975])
    return Rate(float(values.mean()), float(low), float(high))

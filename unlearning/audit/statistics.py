"""Statistics by which a comparison decides: paired intervals, Holm's correction, and what no mean describes.

Differences are paired by training seed: what two methods share of a seed, such as an easy partition, cancels.
Their interval and test are Student's t. Holm, "A Simple Sequentially Rejective Multiple Test Procedure",
Scandinavian Journal of Statistics 6, 1979. Values that are all the same say nothing of their spread: figures
come in steps, such as one example of thirty. Of these the sign test decides, from six values on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev, variance

from unlearning.student_t import quantile, two_sided

LEVEL = 0.05
"""Of intervals (95 %) and decisions."""
_ROUNDING = 1e-9
"""Values that differ by no more are the same."""
_GROUPS_APART = 10.0
"""Percentage points between two groups of values, at least."""
_GROUPS_RATIO = 2.0
"""How much wider the gap between two groups is than both groups together."""


@dataclass(frozen=True)
class Estimate:
    """A mean over independent values with its interval.

    Attributes
    ----------
    mean, low, high : float
        The mean and the ends of its 95 % interval.
    p_value : float
        Two-sided, of a mean of 0.
    count : int
        Over how many values.
    """

    mean: float
    low: float
    high: float
    p_value: float
    count: int


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean of values with Student's interval; None of fewer than two.

    Examples
    --------
    >>> found = estimate([1.0, 2.0, 3.0])
    >>> round(found.low, 3), round(found.high, 3), round(found.p_value, 3)
    (-0.484, 4.484, 0.074)
    """
    if len(values) < 2:
        return None
    mean, degrees = fmean(values), len(values) - 1
    error = stdev(values) / math.sqrt(len(values))
    half = quantile(degrees) * error
    if error <= _ROUNDING * max(1.0, abs(mean)):
        alike = 1.0 if abs(mean) <= _ROUNDING else 0.5**degrees
        return Estimate(mean, mean, mean, alike, len(values))
    return Estimate(mean, mean - half, mean + half, two_sided(mean / error, degrees), len(values))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that are valid for all tests of a family together, in the same order.

    The i-th smallest of m is multiplied by m − i + 1, and is at least as large as those before it.

    Examples
    --------
    >>> holm([0.02, 0.01, 0.5])
    [0.04, 0.03, 0.5]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = least
    return adjusted


def in_two_groups(values: Sequence[float], apart: float = _GROUPS_APART) -> bool:
    """Say whether values lie in two groups, so that their mean is near none of them.

    They do if the largest gap between neighbours in sorted order is at least `apart` and more than twice as
    wide as the two groups together, which is what is left of the range.

    Examples
    --------
    >>> in_two_groups([7.0, 87.0, 85.0]), in_two_groups([40.0, 50.0, 62.0]), in_two_groups([1.0, 5.0])
    (True, False, False)
    """
    ordered = sorted(values)
    gaps = [second - first for first, second in pairwise(ordered)]
    widest = max(gaps, default=0.0)
    return widest >= apart and widest > _GROUPS_RATIO * (sum(gaps) - widest)


def components(values: Sequence[Sequence[float]]) -> tuple[float | None, float | None]:
    """Return the standard deviations over training seeds and over forgettings of one trained model.

    `values` are by training seed; a balanced random-effects model, whose variance between seeds is that of
    the means less what the forgettings put into it, and at least 0. None where there are fewer than two.

    Examples
    --------
    >>> components([[1.0, 3.0], [1.0, 3.0]])
    (0.0, 1.4142135623730951)
    """
    within = [variance(found) for found in values if len(found) > 1]
    inside = fmean(within) if within else None
    if len(values) < 2:
        return None, None if inside is None else math.sqrt(inside)
    means = variance([fmean(found) for found in values])
    share = 0.0 if inside is None else inside * fmean(1.0 / len(found) for found in values)
    between = math.sqrt(max(0.0, means - share))
    return between, None if inside is None else math.sqrt(inside)

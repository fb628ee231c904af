"""How well scores tell two sets apart: the area under the curve, and rates at few false alarms."""

import math

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


def auc(positives: Scores, negatives: Scores) -> float:
    """Return the chance that a positive scores above a negative, ties counted as half.

    Scores have any shape and are read as one list; ValueError if one of the two is empty.

    Examples
    --------
    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    return float(areas(positives.reshape(1, -1), negatives.reshape(1, -1))[0])


def areas(positives: Scores, negatives: Scores) -> Scores:
    """Return the area of each row, shapes [rows, p] and [rows, n] to [rows]; see `auc`."""
    count, others = positives.shape[1], negatives.shape[1]
    if not count or not others:
        raise ValueError(f"got {count} positives and {others} negatives, expected 1 of each or more")
    values = np.concatenate([positives, negatives], axis=1)
    order = np.argsort(values, axis=1)
    sums = (order < count) @ np.arange(1.0, count + others + 1)
    ordered = np.take_along_axis(values, order, axis=1)
    tied = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)  # Their order is by chance
    sums[tied] = _rank_sums(positives[tied], negatives[tied])
    found: Scores = (sums - count * (count + 1) / 2) / (count * others)
    return found


def _rank_sums(positives: Scores, negatives: Scores) -> Scores:
    """Return the sum of the positives' ranks in each row, of equal values their mean rank.

    They are taken twice: with ties in which the positives come first, and in which they come last.
    """
    count, others = positives.shape[1], negatives.shape[1]
    first = np.argsort(np.concatenate([positives, negatives], axis=1), axis=1, kind="stable") < count
    last = np.argsort(np.concatenate([negatives, positives], axis=1), axis=1, kind="stable") >= others
    ranks = np.arange(1.0, count + others + 1)
    found: Scores = 0.5 * (first @ ranks + last @ ranks)
    return found


def true_positive_rate(positives: Scores, negatives: Scores, false_positives: float) -> float | None:
    """Return the share of positives above the lowest cut that at most this share of negatives exceeds.

    None where there are fewer than 1 / `false_positives` negatives, as such a share of them is less than one.

    Examples
    --------
    >>> true_positive_rate(np.array([1.5, 9.0]), np.array([0.0, 1.0, 2.0, 3.0]), 0.5), true_positive_rate(
    ...     np.array([1.5, 9.0]), np.array([0.0, 1.0, 2.0, 3.0]), 0.1
    ... )
    (1.0, None)
    """
    below = np.sort(negatives.ravel())
    allowed = math.floor(false_positives * len(below) + 1e-9)
    if allowed < 1:
        return None
    return float(np.mean(positives.ravel() > below[len(below) - 1 - allowed]))


def balanced_accuracy(positives: Scores, negatives: Scores, cut: float = 0.0) -> float:
    """Return the mean of the shares that are right with a cut: positives above it, negatives not; ties half.

    The cut is given, not searched for: the best of many would be above ½ for scores that mean nothing.
    """

    def share_above(scores: Scores) -> float:
        return float(np.mean((scores > cut) + 0.5 * (scores == cut)))

    return 0.5 * (share_above(positives) + 1.0 - share_above(negatives))

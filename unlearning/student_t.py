"""Student's distribution, of a whole number of degrees of freedom, for which it has finite sums.

Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
"""

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

SMALLEST = 1e-13
"""Smallest tail; below, digits are lost."""
_LEVEL = 0.05


def within(t: ArrayLike, degrees: ArrayLike) -> NDArray[np.float64]:
    """Return the probability between −t and t, with the sign of t.

    Parameters
    ----------
    t
        Shape [..., n].
    degrees
        Degrees of freedom, at least 1, shape [n].
    """
    t, degrees = np.asarray(t, np.float64), np.asarray(degrees)
    odd = degrees % 2 == 1
    angle = np.arctan(t / np.sqrt(degrees))
    sine, cosine = np.sin(angle), np.cos(angle)
    term = np.where(odd, cosine, 1.0) * np.ones(t.shape)
    total = np.zeros(t.shape)
    for j in range(1, int(degrees.max(initial=0)) // 2 + 1):
        total = np.where(j <= degrees // 2, total + term, total)
        term = term * cosine**2 * np.where(odd, 2 * j / (2 * j + 1), (2 * j - 1) / (2 * j))
    found: NDArray[np.float64] = np.where(odd, 2 / np.pi * (angle + sine * total), sine * total)
    return found


def upper_tail(t: NDArray[np.float64], degrees: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return P(T > t), at least `SMALLEST`; shapes are those of `within`.

    Examples
    --------
    The 97.5 % points of 1, 2 and 8 degrees of freedom:

    >>> upper_tail(np.array([12.7062, 4.30265, 2.306]), np.array([1, 2, 8])).round(5).tolist()
    [0.025, 0.025, 0.025]
    """
    return np.maximum((1 - within(t, degrees)) / 2, SMALLEST)


def two_sided(t: float, degrees: int) -> float:
    """Return the probability that Student's t is at least as far from 0 as `t`; `degrees` at least 1.

    Examples
    --------
    >>> round(two_sided(12.706, 1), 4), round(two_sided(4.303, 2), 4), two_sided(0.0, 3)
    (0.05, 0.05, 1.0)
    """
    return min(1.0, max(0.0, 1.0 - float(within(abs(t), degrees))))


@cache
def quantile(degrees: int) -> float:
    """Return the t that Student's stays within with 95 % probability; by bisection.

    Examples
    --------
    >>> [round(quantile(degrees), 3) for degrees in (1, 2, 4, 9, 100)]
    [12.706, 4.303, 2.776, 2.262, 1.984]
    """
    low, high = 0.0, 16.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, degrees) > _LEVEL else (low, middle)
    return high

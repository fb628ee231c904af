"""Averaging of client updates: pure functions, and a sum that does not depend on the order of arrival.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS
2017, Algorithm 1: w_{t+1} = Σ_k (n_k / n) w_{t+1}^k, written here with updates, w_{t+1} = w_t + Σ_k (n_k / n)
δ_k. The sum runs over the clients that took part, so the weights add up to one.

Floating-point addition is not associative, and replies arrive in any order. `ExactSum` therefore adds in
fixed point: int64 addition is associative, so every order gives the same bits, with one buffer whatever the
number of clients.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

MAX_ABS_UPDATE = 1024.0
"""Largest absolute entry of an update that can be averaged; a larger one means that the client diverged."""
DEFAULT_WEIGHT_BOUND = 2.0**31
"""Bound on the sum of weights where nothing better is known."""

_BLOCK = 32_768  # Entries converted at a time: the float64 and int64 copies stay in the L2 cache.


@final
class ExactSum:
    """Running Σ weight·delta and its mean, independent of the order of the terms.

    Each product is taken in float64 and cut towards zero to a multiple of 2^-b, where b = 52 − ⌈log2
    weight_bound⌉, so that the sum of all products stays below 2^62. The mean of m updates is off by at most
    m·2^-b / Σ weight per entry, besides one float64 rounding of each product (2^-53 of its size): with 1,000
    clients of 60 examples and a bound of 60,000, 3·10^-13.

    Parameters
    ----------
    size
        Number of entries of an update.
    weight_bound
        Upper bound on the sum of all weights; `add` refuses to pass it.
    """

    def __init__(self, size: int, weight_bound: float = DEFAULT_WEIGHT_BOUND) -> None:
        if not 0 < weight_bound <= 2.0**50:
            raise ValueError(f"weight_bound must be in (0, 2^50], got {weight_bound}")
        self._total = torch.zeros(size, dtype=torch.int64)
        self._scale = 2.0 ** fraction_bits(weight_bound)
        self._weight_bound = weight_bound
        self._weights: list[float] = []

    @property
    def weight(self) -> float:
        """Sum of the weights so far."""
        return math.fsum(self._weights)

    @property
    def count(self) -> int:
        """Number of terms so far."""
        return len(self._weights)

    def add(self, delta: Tensor, weight: float) -> None:
        """Add weight·delta.

        Parameters
        ----------
        delta
            Shape [size], float32, finite, entries within ±`MAX_ABS_UPDATE`.
        weight
            Positive.

        Raises
        ------
        ValueError
            If the weight is not positive, the bound on the sum of weights would be passed, or an entry is too
            large.
        """
        if not weight > 0 or self.weight + weight > self._weight_bound:
            raise ValueError(f"weight {weight} is not positive or passes the bound {self._weight_bound}")
        if len(delta) and not largest_entry(delta) <= MAX_ABS_UPDATE:
            raise ValueError(f"an entry of the update is not within ±{MAX_ABS_UPDATE}")
        factor = weight * self._scale
        for part, total in zip(torch.split(delta, _BLOCK), torch.split(self._total, _BLOCK), strict=True):
            total.add_(fixed_point(part, factor))
        self._weights.append(weight)

    def add_sum(self, total: Tensor, weight: float) -> None:
        """Add what clients have added up between them in the same fixed point.

        Parameters
        ----------
        total
            Σ of `fixed_point` of each one's update, shape [size], int64.
        weight
            What the sum is divided by, positive.

        Raises
        ------
        ValueError
            If the bound on the sum of weights would be passed.
        """
        if not weight > 0 or self.weight + weight > self._weight_bound:
            raise ValueError(f"weight {weight} is not positive or passes the bound {self._weight_bound}")
        self._total.add_(total)
        self._weights.append(weight)

    def added_to(self, flat: Tensor, divisor: float | None = None) -> Tensor:
        """Return flat + Σ weight·delta / divisor, added in float64 and rounded once to float32, shape [size].

        No float64 copy of the whole vector is made.

        Parameters
        ----------
        flat
            Shape [size].
        divisor
            Above 0; None: Σ weight, which makes it the mean.

        Raises
        ------
        ValueError
            If nothing was added.
        """
        if not self._weights:
            raise ValueError("the mean of no updates is undefined")
        result = torch.empty_like(flat)
        factor = self._scale * (self.weight if divisor is None else divisor)
        blocks = (torch.split(vector, _BLOCK) for vector in (result, flat, self._total))
        for part, start, total in zip(*blocks, strict=True):
            part.copy_(start.double() + total.double().div_(factor))
        return result

    def mean(self) -> Tensor:
        """Return Σ weight·delta / Σ weight, shape [size], float64.

        Raises
        ------
        ValueError
            If nothing was added.
        """
        if not self._weights:
            raise ValueError("the mean of no updates is undefined")
        return self._total.double().div_(self._scale * self.weight)


def fraction_bits(weight_bound: float) -> int:
    """Return the b of the fixed point 2^-b in which Σ weight·delta stays below 2^62 (see `ExactSum`)."""
    return 52 - math.ceil(math.log2(weight_bound))


def fixed_point(delta: Tensor, factor: float) -> Tensor:
    """Return factor·delta, taken in float64 and cut towards zero to whole numbers, int64.

    Examples
    --------
    >>> fixed_point(torch.tensor([0.3, -0.3]), 8.0)
    tensor([ 2, -2])
    """
    return delta.double().mul_(factor).to(torch.int64)


def largest_entry(flat: Tensor) -> float:
    """Return the largest absolute entry of a vector that is not empty; NaN if there is one."""
    low, high = torch.aminmax(flat)  # Eighteen times as fast as the maximum norm.
    return max(-float(low), float(high)) if not math.isnan(float(low)) else math.nan


def apply_mean(flat: Tensor, mean_delta: Tensor) -> Tensor:
    """Return flat + mean_delta, added in float64 and rounded once to float32, shape [size]."""
    return (flat.double() + mean_delta).float()


@dataclass
class MetricMeans:
    """Weighted means of the scalar metrics of many replies, independent of their order."""

    _terms: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, metrics: Mapping[str, float], weight: float) -> None:
        """Add one reply's metrics with its weight."""
        for name, value in metrics.items():
            self._terms.setdefault(name, []).append((value, weight))

    def means(self) -> dict[str, float]:
        """Return the weighted mean of each metric over the replies that had it."""
        return {name: weighted_mean(terms) for name, terms in self._terms.items()}


def weighted_mean(terms: Iterable[tuple[float, float]]) -> float:
    """Return Σ value·weight / Σ weight of (value, weight) pairs, correctly rounded sums.

    Examples
    --------
    >>> weighted_mean([(1.0, 1.0), (4.0, 2.0)])
    3.0
    """
    listed = list(terms)
    return math.fsum(v * w for v, w in listed) / math.fsum(w for _, w in listed)

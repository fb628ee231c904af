"""Averaging of client updates: pure functions, and a sum that does not depend on the order of arrival.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS
2017, Algorithm 1: w_{t+1} = Σ_k (n_k / n) w_{t+1}^k, written here with updates, w_{t+1} = w_t + Σ_k (n_k / n)
δ_k. The sum runs over the clients that took part, so the weights add up to one.

Floating-point addition is not associative, and replies arrive in any order. `ExactSum` therefore adds in
fixed point: integer addition is associative, so every order gives the same bits, with two buffers whatever
the number of clients.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from strategies.core.shared_memory import new_vector
from strategies.server.words import PLACE

MAX_ABS_UPDATE = 1024.0
"""Largest absolute entry of an update that can be averaged; a larger one means that the client diverged."""
FRACTION_BITS = 52
"""Binary digits behind the point of an `ExactSum`, where nothing else is asked for."""
CAPACITY = 2.0**61
"""What the absolute entries of all terms of an `ExactSum` may add up to."""

_CARRY_EVERY = 2**10  # Terms: of each, the low word has at most 2^52.
_LARGEST_TERM = 2.0**51


@final
class ExactSum:
    """Running Σ weight·delta and its mean, independent of the order of the terms.

    Each product is taken in float64 and rounded to the nearest multiple of 2^-b. The sum of those is kept in
    two words of 64 bits, one before the point and one behind it, and is exact. The mean of m updates is off
    by at most m·2^-(b+1) / Σ weight per entry, besides one float64 rounding of each product (2^-53 of its
    size). That holds whatever any client weighs: with b = 52, a client of ten examples that moves an entry by
    10^-5 is heard to 10^-12 of that beside one of 2^31 examples.

    Nothing has to be known of the terms beforehand. There is room for 2^20 clients of 2^31 examples each,
    with entries as large as `MAX_ABS_UPDATE`: more than the guard lets through.

    Parameters
    ----------
    fraction_bits
        b, from 0 to 52. Fewer than 52 give the bits of a masked sum in that fixed point.
    """

    def __init__(self, size: int, fraction_bits: int = FRACTION_BITS) -> None:
        if not 0 <= fraction_bits <= FRACTION_BITS:
            raise ValueError(f"fraction_bits must be from 0 to {FRACTION_BITS}, got {fraction_bits}")
        self._size, self._bits = size, fraction_bits
        self._words = PLACE.get().words(size, fraction_bits)
        self._since_carry = 0
        self._largest = 0.0
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
            Shape [size], float32, finite.
        weight
            Positive.

        Raises
        ------
        ValueError
            If the weight is not positive, an entry is not finite, an entry of the product is beyond 2^51, or
            the sum could pass `CAPACITY`; the sum is as it was then.
        """
        largest = largest_entry(delta) * weight if delta.numel() else 0.0
        self._count(weight, largest)
        self._words.add(delta, weight, largest)

    def add_sum(self, total: Tensor, weight: float, bits: int) -> None:
        """Add what clients have added up between them in fixed point.

        Parameters
        ----------
        total
            Σ of `fixed_point` of each one's update, shape [size], int64.
        weight
            What the sum is divided by, positive.
        bits
            b of that fixed point, at most this sum's.

        Raises
        ------
        ValueError
            If the weight is not positive, the fixed point is finer than this sum's, an entry is beyond 2^51,
            or the sum could pass `CAPACITY`; the sum is as it was then.
        """
        if not 0 <= bits <= self._bits:
            raise ValueError(
                f"a sum in multiples of 2^-{bits} cannot be kept in multiples of 2^-{self._bits}"
            )
        self._count(weight, max((abs(int(v)) for v in torch.aminmax(total)), default=0) * 2.0**-bits)
        self._words.add_whole(total >> bits, (total & (2**bits - 1)) << (self._bits - bits))

    def _count(self, weight: float, largest: float) -> None:
        """Note a term that is to be added, with its largest entry; ValueError if it cannot be."""
        if not 0 < weight < math.inf:
            raise ValueError(f"weight {weight} is not positive and finite")
        if not largest <= _LARGEST_TERM:  # False for NaN
            raise ValueError(f"an entry of the update is not finite, or times {weight} not within ±2^51")
        if self._largest + largest > CAPACITY:
            raise ValueError(f"the sum could pass {CAPACITY:g}")
        if self._since_carry == _CARRY_EVERY:
            self._words.carry()
            self._since_carry = 0
        self._since_carry += 1
        self._largest += largest
        self._weights.append(weight)

    def added_to(self, flat: Tensor, divisor: float | None = None, factor: float = 1.0) -> Tensor:
        """Return flat + factor · Σ weight·delta / divisor, shape [size], rounded once to float32.

        It is computed in float64, of which no copy of the whole vector is made.

        Parameters
        ----------
        flat
            Shape [size].
        divisor
            Above 0; None: Σ weight, which makes it the mean.
        factor
            Of the mean; neutral 1.

        Raises
        ------
        ValueError
            If nothing was added.
        """
        result = new_vector(self._size) if flat.dtype == torch.float32 else torch.empty_like(flat)
        divisor = self.weight if divisor is None else divisor
        for where, high, low in self._carried():
            mean = self._float64(high, low, divisor).mul_(factor)
            result[where] = mean.add_(flat[where].to(mean.device))
        return result

    def mean(self) -> Tensor:
        """Return Σ weight·delta / Σ weight, shape [size], float64; ValueError if nothing was added."""
        result = torch.empty(self._size, dtype=torch.float64)
        for where, high, low in self._carried():
            result[where] = self._float64(high, low, self.weight)
        return result

    def _carried(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        if not self._weights:
            raise ValueError("the mean of no updates is undefined")
        return self._words.pieces()

    def _float64(self, high: Tensor, low: Tensor, divisor: float) -> Tensor:
        # The divisor is a tensor, as CUDA multiplies by the reciprocal of a number
        by = torch.tensor(divisor, dtype=torch.float64, device=high.device)
        return low.double().mul_(2.0**-self._bits).add_(high.double()).div_(by)


def fraction_bits(weight_bound: float) -> int:
    """Return the largest b of a fixed point 2^-b in which Σ weight·delta stays below 2^62, in 64 bits.

    Parameters
    ----------
    weight_bound
        Upper bound on Σ weight, from 1 to 2^50; the entries are within ±`MAX_ABS_UPDATE`.
    """
    if not 1 <= weight_bound <= 2.0**50:
        raise ValueError(f"weight_bound must be from 1 to 2^50, got {weight_bound}")
    return 52 - math.ceil(math.log2(weight_bound))


def fixed_point(delta: Tensor, factor: float) -> Tensor:
    """Return factor·delta, taken in float64 and rounded to the nearest whole number (half to even), int64.

    Examples
    --------
    >>> fixed_point(torch.tensor([0.3, -0.3, 0.45]), 8.0)
    tensor([ 2, -2,  4])
    """
    return delta.double().mul_(factor).round_().to(torch.int64)


def largest_entry(flat: Tensor) -> float:
    """Return the largest absolute entry of a vector that is not empty; NaN if there is one."""
    low, high = torch.aminmax(flat)  # Eighteen times as fast as the maximum norm.
    return max(-float(low), float(high)) if not math.isnan(float(low)) else math.nan


def is_finite(flat: Tensor) -> bool:
    """Return whether all entries of a vector are finite; nothing of its size is made to find out."""
    return flat.numel() == 0 or math.isfinite(largest_entry(flat))


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

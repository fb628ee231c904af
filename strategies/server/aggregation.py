"""Averaging of client updates: pure functions, and a sum that does not depend on the order of arrival.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS
2017, Algorithm 1: w_{t+1} = Σ_k (n_k / n) w_{t+1}^k, written here with updates, w_{t+1} = w_t + Σ_k (n_k / n)
δ_k. The sum runs over the clients that took part, so the weights add up to one.

Floating-point addition is not associative, and replies arrive in any order. `ExactSum` therefore adds in
fixed point: integer addition is associative, so every order gives the same bits, with two buffers whatever
the number of clients.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MAX_ABS_UPDATE = 1024.0
"""Largest absolute entry of an update that can be averaged; a larger one means that the client diverged."""
FRACTION_BITS = 52
"""Binary digits behind the point of an `ExactSum`, where nothing else is asked for."""
CAPACITY = 2.0**61
"""What the absolute entries of all terms of an `ExactSum` may add up to."""

FloatVector = npt.NDArray[np.float64]

_BLOCK = 32_768  # Entries converted at a time: the float64 and int64 copies stay in the L2 cache.
_CARRY_EVERY = 2**10  # Terms: of each, the low word has at most 2^52.
_LARGEST_TERM = 2.0**51
_SHIFT = 1.5 * 2.0**52
"""Added to a float64 within ±`_LARGEST_TERM`, it leaves the nearest whole number, half to even, in the lowest
bits: three times as fast as rounding and converting."""
_SHIFT_BITS = int(torch.tensor(_SHIFT, dtype=torch.float64).view(torch.int64))


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
        self._bits = fraction_bits
        self._high = torch.zeros(size, dtype=torch.int64)
        self._low = torch.zeros(size, dtype=torch.int64)  # Multiples of 2^-b
        self._scratch = np.empty((2, min(size, _BLOCK)))
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
        self._count(weight, largest_entry(delta) * weight if delta.numel() else 0.0)
        vectors = (delta.detach().numpy(), self._high.numpy(), self._low.numpy())
        for start in range(0, delta.numel(), _BLOCK):
            part, high, low = (vector[start : start + _BLOCK] for vector in vectors)
            product, shifted = self._scratch[:, : len(part)]
            np.multiply(part, weight, out=product, dtype=np.float64)
            high += _whole(product, shifted)
            product -= shifted
            product *= 2.0**self._bits
            low += _whole(product, shifted)

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
        self._high.add_(total >> bits)
        self._low.add_((total & (2**bits - 1)) << (self._bits - bits))

    def _count(self, weight: float, largest: float) -> None:
        """Note a term that is to be added, with its largest entry; ValueError if it cannot be."""
        if not 0 < weight < math.inf:
            raise ValueError(f"weight {weight} is not positive and finite")
        if not largest <= _LARGEST_TERM:  # False for NaN
            raise ValueError(f"an entry of the update is not finite, or times {weight} not within ±2^51")
        if self._largest + largest > CAPACITY:
            raise ValueError(f"the sum could pass {CAPACITY:g}")
        self._carry_if(self._since_carry == _CARRY_EVERY)
        self._since_carry += 1
        self._largest += largest
        self._weights.append(weight)

    def _carry_if(self, due: bool) -> None:
        """Bring the low word into [0, 1): the sum has one form then, whatever the order of its terms."""
        if due:
            self._high.add_(self._low >> self._bits)
            self._low.bitwise_and_(2**self._bits - 1)
            self._since_carry = 0

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
        result = torch.empty_like(flat)
        blocks = (torch.split(vector, _BLOCK) for vector in (result, flat, *self._words()))
        divisor = self.weight if divisor is None else divisor
        for part, start, high, low in zip(*blocks, strict=True):
            part.copy_(start.double() + self._float64(high, low).div_(divisor))
        return result

    def mean(self) -> Tensor:
        """Return Σ weight·delta / Σ weight, shape [size], float64; ValueError if nothing was added."""
        return self._float64(*self._words()).div_(self.weight)

    def _words(self) -> tuple[Tensor, Tensor]:
        if not self._weights:
            raise ValueError("the mean of no updates is undefined")
        self._carry_if(True)
        return self._high, self._low

    def _float64(self, high: Tensor, low: Tensor) -> Tensor:
        return low.double().mul_(2.0**-self._bits).add_(high.double())


def _whole(numbers: FloatVector, nearest: FloatVector) -> npt.NDArray[np.int64]:
    """Return the whole numbers nearest to some within ±`_LARGEST_TERM`; `nearest` is overwritten with them.

    NumPy's loops over a block take two thirds of the time of torch's, and of a small vector one third.
    """
    np.add(numbers, _SHIFT, out=nearest)
    found = nearest.view(np.int64) - _SHIFT_BITS
    nearest -= _SHIFT
    return found


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

"""Statistics as sums of small integer vectors: what a client adds, and what the server reads from the sum.

A count is [n]; a histogram has one entry per bin; a mean is [n, Σ v · 2^16] of values cut to a range;
quantiles and heavy hitters are read from a histogram. With noise, every entry of the sum has discrete Laplace
noise,

    P(k) ∝ exp(−ε |k| / Δ),   Δ = what one example, added or removed, changes the vector by in the L1 norm

(Ghosh, Roughgarden, Sundararajan, "Universally Utility-Maximizing Privacy Mechanisms", STOC 2009), so that
the answer is ε-differentially private for each example, with δ = 0. It is infinitely divisible: each of t
clients adds the difference of two draws of the negative binomial distribution with r = 1/t and success
probability 1 − exp(−ε/Δ), and the sum of t of them is one discrete Laplace draw (Goryczka, Xiong, "A
Comprehensive Comparison of Multiparty Secure Additions with Differential Privacy", TDSC 2017). With t the
fewest clients that a sum can have, no server ever sees less noise than that. Neutral: ε = 0 adds none.

A negative binomial draw with success probability p is the sum of a Poisson number of logarithmic ones. The
Poisson mean is −r ln p; a logarithmic draw is 1 + ⌊ln V / ln(1 − p^U)⌋ for U and V uniform (Kemp, "Efficient
Generation of Logarithmically Distributed Pseudo-Random Variables", Applied Statistics 30, 1981, LS). Uniform
numbers have 53 bits (`strategies.core.secret_random`), so δ is some 2⁻⁵⁰ per entry in place of 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies.analytics.settings import AnalyticsSettings
from strategies.core.secret_random import RandomStream

_FRACTION = 16
"""Binary digits after the point of a summed value."""

Integers = NDArray[np.int64]


@final
@dataclass(frozen=True)
class Question:
    """A statistic of one column, with the number of classes of the data."""

    settings: AnalyticsSettings
    num_groups: int

    @property
    def is_label(self) -> bool:
        """Whether values are whole numbers from 0 to the number of classes."""
        return self.settings.column == "label"

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest value that counts."""
        return (0.0, self.num_groups - 1.0) if self.is_label else (self.settings.low, self.settings.high)

    @property
    def num_bins(self) -> int:
        """Bins of a histogram: one per label, or as many as are set."""
        return self.num_groups if self.is_label else self.settings.bins

    @property
    def size(self) -> int:
        """Entries of the vector."""
        return {"count": 1, "mean": 2}.get(self.settings.statistic, self.num_bins)

    @property
    def sensitivity(self) -> float:
        """How much one example changes the vector in the L1 norm at most."""
        if self.settings.statistic != "mean":
            return 1.0
        return 1.0 + max(map(abs, self.limits)) * 2.0**_FRACTION

    def vector(self, values: Tensor) -> Integers:
        """Return what a client with these values adds to the sum, shape [size].

        Examples
        --------
        >>> Question(AnalyticsSettings(), 3).vector(torch.tensor([0.0, 2.0, 2.0])).tolist()
        [1, 0, 2]
        """
        cut = values.double().clamp(*self.limits)
        if self.settings.statistic == "count":
            return np.array([len(cut)], dtype=np.int64)
        if self.settings.statistic == "mean":
            scaled = (cut * 2.0**_FRACTION).round().to(torch.int64)
            return np.array([len(cut), int(scaled.sum())], dtype=np.int64)
        counts: Integers = np.bincount(self._bins(cut).numpy(), minlength=self.num_bins).astype(np.int64)
        return counts

    def _bins(self, cut: Tensor) -> Tensor:
        low, high = self.limits
        if self.is_label:
            return cut.to(torch.int64)
        place = (cut - low) / (high - low) * self.num_bins
        return place.to(torch.int64).clamp(max=self.num_bins - 1)

    def noise(self, sharers: int, stream: RandomStream) -> Integers:
        """Return one client's part of the noise, shape [size]; that of `sharers` clients adds up to all.

        Parameters
        ----------
        sharers
            Clients whose noise is enough, at least 1.
        stream
            Unpredictable for the server.
        """
        if self.settings.epsilon == 0:
            return np.zeros(self.size, dtype=np.int64)
        return laplace_part(self.size, self.settings.epsilon / self.sensitivity, sharers, stream)

    def answer(self, total: Integers) -> dict[str, Any]:
        """Return what the sum says, as plain data."""
        statistic = self.settings.statistic
        if statistic == "count":
            return {"count": int(total[0])}
        if statistic == "mean":
            count = int(total[0])
            return {"count": count, "mean": int(total[1]) / 2.0**_FRACTION / count if count > 0 else None}
        histogram = {"bins": self._edges(), "counts": [int(n) for n in total]}
        if statistic == "quantile":
            return {"quantile": self.settings.quantile, "value": self._quantile(total)}
        if statistic == "heavy-hitters":
            return {"heavy-hitters": self._heaviest(total)}
        return histogram

    def _edges(self) -> list[float]:
        """Return the labels, or the lower edges of the bins."""
        if self.is_label:
            return [float(label) for label in range(self.num_groups)]
        low, high = self.limits
        return [low + (high - low) * i / self.num_bins for i in range(self.num_bins)]

    def _quantile(self, total: Integers) -> float | None:
        """Return the lower edge of the first bin with which a share q of all examples is reached."""
        counts = np.clip(total, 0, None)
        if not counts.any():
            return None
        reached = np.cumsum(counts) >= max(1.0, math.ceil(self.settings.quantile * counts.sum() - 1e-9))
        return self._edges()[int(np.argmax(reached))]

    def _heaviest(self, total: Integers) -> list[dict[str, float | int]]:
        edges = self._edges()
        order: Sequence[int] = np.argsort(-total, kind="stable")[: self.settings.top].tolist()
        return [{"value": edges[i], "count": int(total[i])} for i in order if total[i] > 0]


def laplace_part(size: int, rate: float, sharers: int, stream: RandomStream) -> Integers:
    """Return one client's part of discrete Laplace noise, shape [size], of which `sharers` add up to all.

    `rate` is ε over the sensitivity.
    """
    draws = negative_binomial(1.0 / sharers, -rate, 2 * size, stream)
    difference: Integers = (draws[:size] - draws[size:]).numpy()
    return difference


def negative_binomial(successes: float, log_failure: float, count: int, stream: RandomStream) -> Tensor:
    """Draw negative binomial numbers: failures before the r-th success, shape [count], int64.

    Parameters
    ----------
    successes
        r, above 0; need not be whole.
    log_failure
        Logarithm of the probability of a failure, below 0.
    """
    log_success = float(_log_of_complement(torch.tensor(log_failure, dtype=torch.float64)))
    terms = _poisson(-successes * log_success, count, stream)
    owner = torch.repeat_interleave(torch.arange(count), terms)
    u, v = stream.uniform(len(owner)), stream.uniform(len(owner))
    logarithmic = 1 + torch.floor(torch.log(1 - v) / _log_of_complement(u * log_success)).to(torch.int64)
    return torch.zeros(count, dtype=torch.int64).index_add_(0, owner, logarithmic)


def _poisson(mean: float, count: int, stream: RandomStream) -> Tensor:
    """Return Poisson numbers, shape [count], by the inverse of their distribution; the mean is moderate."""
    if mean == 0:
        return torch.zeros(count, dtype=torch.int64)
    values = torch.arange(100 + math.ceil(4 * mean), dtype=torch.float64)
    reached = torch.exp(values * math.log(mean) - mean - torch.lgamma(values + 1)).cumsum(0)
    return torch.searchsorted(reached, stream.uniform(count), right=True)


def _log_of_complement(log: Tensor) -> Tensor:
    """Return ln(1 − e^x) for x at most 0, by the formula that is accurate there."""
    return torch.where(log > -math.log(2), torch.log(-torch.expm1(log)), torch.log1p(-torch.exp(log)))

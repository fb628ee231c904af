"""The scale of the targets of a regression from one secure sum: no client shows its targets, or its own sums.

It is the standard deviation of the targets over all clients' training examples; of k numbers each, the root
of their mean variance. Without noise a client adds what `strategies.analytics.scaling` adds for the columns
of a table. With noise it adds, with every target cut to a declared range ±R,

    [2^F n, Σ ⌊2^F y_j / R⌉, Σ ⌊2^F y_j² / R²⌉],    j = 1 … k,

of which one example changes at most (1 + 2 k) 2^F in the L1 norm, and its part of discrete Laplace noise for
that (see `strategies.analytics.statistics`), so that the sum is ε-differentially private for each example,
with δ = 0. The standard deviation of the noise of n, and of Σ y² / R², is some √2 (1 + 2 k) / ε: R should be
no larger than it must. Neutral: ε = 0 adds none.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from flwr.app import ArrayRecord
from torch import Tensor

from strategies.analytics.asking import Sharing, secure_total
from strategies.analytics.scaling import FixedPoint, check_sharers
from strategies.analytics.statistics import Integers, laplace_part
from strategies.core.errors import LetheError
from strategies.core.secret_random import RandomStream
from strategies.layers.secagg.client import Entries, Refused, SecureClient
from strategies.server.cohort import Cohort

ASK_TARGETS = "query.target_scale"
"""Asks for the masked sums of the targets of a client's training data."""
RANGE = "task.scale-range"
_FRACTION = 16


@final
@dataclass(frozen=True)
class TargetSums:
    """The sums of targets.

    Parameters
    ----------
    numbers
        k, of each example.
    limit
        Largest absolute value of a target, R.
    epsilon
        Of the noise; 0: none, and targets beyond the range are refused.
    """

    numbers: int
    limit: float
    epsilon: float = 0.0

    @property
    def size(self) -> int:
        """Entries of the vector."""
        return FixedPoint.size_of(self.numbers) if not self.epsilon else 1 + 2 * self.numbers

    @property
    def sensitivity(self) -> float:
        """How much one example changes the noised vector in the L1 norm at most."""
        return (1 + 2 * self.numbers) * 2.0**_FRACTION

    def vector(self, targets: Tensor, ready: int, sharers: int, stream: RandomStream) -> Integers:
        """Return what a client with these targets, shape [n] or [n, k], adds to the sum, shape [size].

        Parameters
        ----------
        ready
            Clients that may take part.
        sharers
            Clients whose noise must be enough.

        Raises
        ------
        Refused
            If they are others than numbers in range, or not k each.
        """
        rows = targets.double().reshape(len(targets), targets[:1].numel() or self.numbers)
        if rows.shape[1] != self.numbers:
            raise Refused("it has another number of targets of each example than task.outputs says")
        if not self.epsilon:
            return FixedPoint(ready, self.limit, RANGE).vector(rows, stream)
        cut = rows.clamp(-self.limit, self.limit) / self.limit
        sums = [(part * 2.0**_FRACTION).round().sum(dim=0) for part in (cut, cut.square())]
        whole = [len(rows) << _FRACTION, *(int(value) for each in sums for value in each)]
        noise = laplace_part(self.size, self.epsilon / self.sensitivity, sharers, stream)
        return np.array(whole, dtype=np.int64) + noise

    def read(self, total: Integers, ready: int) -> float:
        """Return the scale that the sum of the clients' vectors tells.

        Raises
        ------
        LetheError
            If it tells none.
        """
        if not self.epsilon:
            return root_mean_square(FixedPoint(ready, self.limit, RANGE).read(total)[1])
        count, k = int(total[0]), self.numbers
        if count > 0:
            means, squares = (part / count for part in (total[1 : 1 + k], total[1 + k :]))
            variance = float(np.mean(squares - means**2))
            if 0 < variance <= 1 and bool((np.abs(means) <= 1).all()):
                return self.limit * math.sqrt(variance)
        raise LetheError(
            "task.scale-from: the noise of analytics.epsilon hides the scale of the targets in "
            f"±{self.limit:g}; give a larger analytics.epsilon, a smaller {RANGE}, or task.scale"
        )


def root_mean_square(deviations: list[float]) -> float:
    """Return the root of the mean variance.

    >>> root_mean_square([1.0, 7.0])
    5.0
    """
    return math.sqrt(math.fsum(d * d for d in deviations) / len(deviations))


def ask_target_scale(cohort: Cohort, sums: TargetSums, min_clients: int, threshold: float) -> float:
    """Ask all clients of a cohort for the sums of their targets; return the scale.

    Raises
    ------
    LetheError
        If fewer clients than must are connected, or answer, or the sums tell no scale.
    """
    sharing = Sharing(threshold, "task.scale-from")
    total = secure_total(cohort, ASK_TARGETS, {}, sums.size, min_clients, sharing)
    return sums.read(total.sum, total.ready)


def answer_target_scale(
    half: SecureClient, min_clients: int, sums: TargetSums, targets: Callable[[], Tensor]
) -> tuple[ArrayRecord, Entries]:
    """Return a client's masked sums.

    Parameters
    ----------
    min_clients, sums
        As the client itself knows them.

    Raises
    ------
    Refused
        If fewer clients take part, or the targets are no numbers in range.
    """
    ready = check_sharers(half, min_clients)
    vector = sums.vector(targets(), ready, half.sharers(), RandomStream.secret())
    return half.masked(vector.view(np.uint64))

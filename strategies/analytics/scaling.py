"""Means and deviations of a table's columns from one secure sum: no client shows its data, or its own sums.

A client adds [n, Σ x_j, Σ x_j²] over its rows, for every column j. From the totals,

    mean_j = Σ x_j / n,    deviation_j² = Σ x_j² / n − mean_j²,

as over the pooled rows, with 1 for the deviation of a constant column. Sums of squares need more digits than
the 64 bits of a masked entry have, so that a small deviation beside a large mean is not lost. A sum is
therefore a fixed-point number of `_WIDTH` bits, whose digits v_0, v_1, … to the base 2^32 are entries

    e_i = v_i + 2^32 · r_i − r_{i−1},    Σ e_i 2^{32 i} = Σ v_i 2^{32 i},    r_{−1} = 0 and none for the last,

with the r_i drawn uniformly, in secret and anew for each sum: without them the total of an entry would tell
how much of it was carried. With them, what two possible sets of sums show differs by at most
(clients)² / 2^30 per entry.

The binary point lies where `clients` × `_MOST_EXAMPLES` rows at the ends of a declared range still fit, so
that it depends on no data. There is no noise in these sums.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import final

import numpy as np
from flwr.app import ArrayRecord
from torch import Tensor

from strategies.analytics.asking import Sharing, secure_total
from strategies.analytics.statistics import Integers
from strategies.core.errors import LetheError
from strategies.core.examples import Examples, in_memory
from strategies.core.secret_random import RandomStream
from strategies.layers.secagg import protocol
from strategies.layers.secagg.client import Entries, Refused, SecureClient
from strategies.server.cohort import Cohort

ASK_SCALE = "query.scale"
"""Asks for the masked sums of the columns of a client's training data."""
_BASE = 32
_DIGITS = 3
_WIDTH = _BASE * (_DIGITS - 1) + 60
_MOST_EXAMPLES = 1 << 24
"""Rows of one client, at most."""
_FLOAT = Fraction(1, 1 << 48)
"""Relative error of a sum of squares in float64; a column that varies by less is constant in float32."""


@final
@dataclass(frozen=True)
class FixedPoint:
    """Where the binary point of the sums lies.

    Parameters
    ----------
    clients
        Clients that may take part.
    limit
        Largest absolute value of a column.
    key
        The key that says so.
    """

    clients: int
    limit: float
    key: str = "data.scale-range"

    @staticmethod
    def size_of(columns: int) -> int:
        """Return the entries of the vector of a table with so many columns."""
        return 1 + 2 * _DIGITS * columns

    @property
    def _told(self) -> str:
        return f"{self.key.removesuffix('-range')}: the clients' sums"

    @property
    def bits(self) -> tuple[int, int]:
        """Digits after the point of Σ x, and of Σ x²."""
        rows = self.clients * _MOST_EXAMPLES
        first, second = (math.ceil(math.log2(rows * self.limit**power)) for power in (1, 2))
        return _WIDTH - 1 - first, _WIDTH - 1 - second

    @property
    def blinding(self) -> int:
        """Bits of r."""
        return 62 - _BASE - math.ceil(math.log2(self.clients))

    def vector(self, x: Tensor, stream: RandomStream) -> Integers:
        """Return what a client with the table x, shape [n, columns], adds to the sum: [1 + 6 · columns].

        Raises
        ------
        Refused
            If a value is beyond the range, or there are too many rows.
        """
        values = x.double()
        if len(values) > _MOST_EXAMPLES:
            raise Refused(f"it has more examples than a secure scale takes of a client ({_MOST_EXAMPLES})")
        if len(values) and not float(values.abs().max()) <= self.limit:
            raise Refused(f"it holds a value beyond ±{self.limit:g}; {self.key} says how large they may be")
        whole = [
            round(math.ldexp(float(total), bits))
            for sums, bits in zip((values.sum(dim=0), (values * values).sum(dim=0)), self.bits, strict=True)
            for total in sums
        ]
        blind = (stream.uniform(len(whole) * (_DIGITS - 1)) * 2.0**self.blinding).long().tolist()
        entries = [len(values)]
        for place, total in enumerate(whole):
            carried = blind[place * (_DIGITS - 1) : (place + 1) * (_DIGITS - 1)]
            entries += _entries(total, carried)
        return np.array(entries, dtype=np.int64)

    def read(self, total: Integers) -> tuple[list[float], list[float]]:
        """Return means and deviations from the sum of the clients' vectors.

        Raises
        ------
        LetheError
            If it is none that honest clients could give.
        """
        count, entries = int(total[0]), [int(entry) for entry in total[1:]]
        sums = [
            sum(entry << (_BASE * i) for i, entry in enumerate(entries[start : start + _DIGITS]))
            for start in range(0, len(entries), _DIGITS)
        ]
        half = len(sums) // 2
        if not 0 < count <= self.clients * _MOST_EXAMPLES:
            raise LetheError(f"{self._told} tell of {count} examples: they are not used")
        columns = [self._column(count, *pair) for pair in zip(sums[:half], sums[half:], strict=True)]
        return [mean for mean, _ in columns], [deviation for _, deviation in columns]

    def _column(self, count: int, first: int, second: int) -> tuple[float, float]:
        bits = self.bits
        mean, square = Fraction(first, count << bits[0]), Fraction(second, count << bits[1])
        variance = square - mean * mean
        # Every client rounds its sums to one half of the last digit, and has summed them in float64
        digits = Fraction(1, 1 << bits[1]) + 2 * abs(mean) / (1 << bits[0])
        rounding = Fraction(self.clients, 2 * count) * digits + abs(square) * _FLOAT
        if abs(mean) > self.limit or not -rounding <= variance <= Fraction(self.limit) ** 2 + rounding:
            raise LetheError(f"{self._told} are none of values in range: they are not used")
        return float(mean), math.sqrt(variance) if variance > rounding else 1.0


def _entries(total: int, carried: Sequence[int]) -> list[int]:
    """Return the entries of a sum, from the digits and what is carried between them."""
    digits = [(total >> (_BASE * i)) % (1 << _BASE) for i in range(_DIGITS - 1)]
    lower = [digit + (r << _BASE) for digit, r in zip(digits, carried, strict=True)]
    entries = [*lower, total >> (_BASE * (_DIGITS - 1))]
    return [entry - r for entry, r in zip(entries, [0, *carried], strict=True)]


def ask_scale(
    cohort: Cohort, columns: int, limit: float, min_clients: int, sharing: Sharing
) -> tuple[float, ...]:
    """Ask all clients of a cohort for the sums of their columns; return the means, then the deviations.

    Parameters
    ----------
    columns
        Number of columns of the inputs.
    limit
        Largest absolute value of a column.
    min_clients
        Fewest clients whose sums are taken.

    Raises
    ------
    LetheError
        If fewer clients are connected, or answer, than must: nothing is known then.
    """
    total = secure_total(cohort, ASK_SCALE, {}, FixedPoint.size_of(columns), min_clients, sharing)
    means, deviations = FixedPoint(total.ready, limit).read(total.sum)
    return (*means, *deviations)


def check_sharers(half: SecureClient, min_clients: int) -> int:
    """Return how many clients take part in the sum that is due; Refused if they are fewer than must be."""
    half.check_due()
    ready = len(protocol.numbers(half.config, protocol.NUMBERS))
    if ready < min_clients:
        raise Refused(f"{ready} clients take part, analytics.min-clients is {min_clients}")
    return ready


def answer_scale(
    half: SecureClient, min_clients: int, limit: float, examples: Callable[[], Examples]
) -> tuple[ArrayRecord, Entries]:
    """Return a client's masked sums.

    Parameters
    ----------
    min_clients, limit
        As the client itself knows them.

    Raises
    ------
    Refused
        If fewer clients take part, or the client's inputs are no table in range.
    """
    ready = check_sharers(half, min_clients)
    own = examples()
    if len(own.input_shape) != 1:
        raise Refused(f"its inputs have shape {own.input_shape}; only the columns of a table can be scaled")
    vector = FixedPoint(ready, limit).vector(in_memory(own).x, RandomStream.secret())
    return half.masked(vector.view(np.uint64))

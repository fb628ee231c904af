"""Where the two words of an `ExactSum` lie: in memory, in a file of its own, or on a device.

Each keeps Σ of the terms as (high, low): whole numbers, and multiples of 2^-b, 64 bits each. All compute the
same integers, so it makes no difference to a bit of the mean which one is used.
"""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Protocol, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from strategies.runs.files import not_written

SPILLED_BYTES = 2**25
"""Of a float32 vector: from this size on its sum lies in a file, where a folder is known for it."""

_FloatVector = npt.NDArray[np.float64]
_IntVector = npt.NDArray[np.int64]

_BLOCK = 32_768  # Entries converted at a time: the float64 and int64 copies stay in the L2 cache.
_DEVICE_BLOCK = 2**24


@dataclass(frozen=True)
class _Shift:
    """What is added to a float64 to leave the nearest multiple of 2^-b, half to even, in its lowest bits.

    The bits are those of `number` and the multiple, for float64 within ±2^(51−b): three times as fast as
    rounding and converting. Of several, what `number` adds to their sum is taken off once: whole numbers of
    64 bits go round, so that it does not matter whether they did in between.
    """

    number: float
    bits: int

    @staticmethod
    def to_multiples(b: int) -> "_Shift":
        number = 1.5 * 2.0 ** (52 - b)
        return _Shift(number, int(torch.tensor(number, dtype=torch.float64).view(torch.int64)))

    def of(self, terms: int) -> int:
        """Return what so many terms have added, as a whole number of 64 bits."""
        return (self.bits * terms + 2**63) % 2**64 - 2**63


_WHOLE = _Shift.to_multiples(0)
_NO_HIGH = 0.5
"""An absolute entry up to this has 0 for its nearest whole number, half to even."""


class Words(Protocol):
    """The words of a sum of vectors, shape [size]; what is added was checked to fit."""

    def add(self, delta: Tensor, weight: float, largest: float) -> None:
        """Add weight·delta, of float32 entries; the low word grows by 2^52 at most.

        `largest` is the largest absolute entry of the product, or above it.
        """

    def add_whole(self, high: Tensor, low: Tensor) -> None:
        """Add both words of a sum, int64."""

    def carry(self) -> None:
        """Bring the low word into [0, 2^b), so that more can be added."""

    def pieces(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield where a piece lies, and its words, in order; they are valid until the next one.

        The low word is in [0, 2^b): a sum has one form, whatever the order of its terms.
        """

    @property
    def device(self) -> torch.device:
        """Where the pieces are."""


@dataclass(frozen=True)
class Place:
    """Where sums are kept.

    Parameters
    ----------
    folder
        For the files of large sums; None: they are kept in memory.
    device
        Where sums are computed by torch; None: here, by NumPy.
    """

    folder: Path | None = None
    device: torch.device | None = None

    def words(self, size: int, bits: int) -> Words:
        """Return the words of a new sum in multiples of 2^-`bits`."""
        if self.device is not None:
            return DeviceWords(size, bits, self.device)
        if self.folder is not None and 4 * size >= SPILLED_BYTES:
            return FileWords(size, bits, self.folder)
        return MemoryWords(size, bits)


PLACE: ContextVar[Place] = ContextVar("place", default=Place())  # noqa: B039 (it is frozen)
"""Where the sums are kept that are begun now."""


@contextmanager
def sums_kept(place: Place) -> Iterator[None]:
    """Have the sums that are begun within kept in a place."""
    token = PLACE.set(place)
    try:
        yield
    finally:
        PLACE.reset(token)


@final
class MemoryWords:
    """Words in this process's memory."""

    device = torch.device("cpu")

    def __init__(self, size: int, bits: int) -> None:
        self._terms = _Terms(bits)
        self._high, self._low = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self._scratch = np.empty((2, min(size, _BLOCK)))

    def add(self, delta: Tensor, weight: float, largest: float) -> None:
        """See `Words`."""
        entries, whole = delta.detach().numpy(), self._terms.counted(largest)
        for start in range(0, delta.numel(), _BLOCK):
            where = slice(start, start + _BLOCK)
            high = self._high[where] if whole else None
            _add(entries[where], weight, self._terms.fine, high, self._low[where], self._scratch)

    def add_whole(self, high: Tensor, low: Tensor) -> None:
        """See `Words`."""
        self._high += high.numpy()
        self._low += low.numpy()

    def carry(self) -> None:
        """See `Words`."""
        self._terms.carry(self._high, self._low)
        self._terms.reset()

    def pieces(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """See `Words`."""
        self.carry()
        for start in range(0, len(self._high), _BLOCK):
            where = slice(start, start + _BLOCK)
            yield where, torch.from_numpy(self._high[where]), torch.from_numpy(self._low[where])


@final
class FileWords:
    """Words in an unnamed file, which disappears with the process; a piece at a time is in memory.

    Parameters
    ----------
    folder
        Where the file lies.
    """

    device = torch.device("cpu")

    def __init__(self, size: int, bits: int, folder: Path) -> None:
        self._size, self._folder, self._terms = size, folder, _Terms(bits)
        self._scratch = np.empty((2, _BLOCK))
        self._buffer = np.zeros(2 * _BLOCK, np.int64)
        self._empty = True
        try:
            self._file = TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - as long as the sum is there
        except OSError as error:
            raise not_written(folder, error) from error
        weakref.finalize(self, self._file.close)

    def add(self, delta: Tensor, weight: float, largest: float) -> None:
        """See `Words`."""
        entries, whole = delta.detach().numpy(), self._terms.counted(largest)
        for where, high, low in self._blocks():
            _add(entries[where], weight, self._terms.fine, high if whole else None, low, self._scratch)
        self._empty = False

    def add_whole(self, high: Tensor, low: Tensor) -> None:
        """See `Words`."""
        for where, own_high, own_low in self._blocks():
            own_high += high[where].numpy()
            own_low += low[where].numpy()
        self._empty = False

    def carry(self) -> None:
        """See `Words`."""
        for _, high, low in self._blocks():
            self._terms.carry(high, low)
        self._terms.reset()
        self._empty = False

    def pieces(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """See `Words`."""
        for where, high, low in self._blocks(change=False):
            self._terms.carry(high, low)
            yield where, torch.from_numpy(high), torch.from_numpy(low)

    def _blocks(self, *, change: bool = True) -> Iterator[tuple[slice, _IntVector, _IntVector]]:
        """Yield each piece of the words, and write it back where they change."""
        try:
            for start in range(0, self._size, _BLOCK):
                count = min(_BLOCK, self._size - start)
                block, offset = self._buffer[: 2 * count], 16 * start
                if self._empty:
                    block[:] = 0
                else:
                    os.preadv(self._file.fileno(), [block.data], offset)
                yield slice(start, start + count), block[:count], block[count:]
                if change:
                    os.pwritev(self._file.fileno(), [block.data], offset)
        except OSError as error:
            raise not_written(self._folder / "sum", error) from error


@final
class DeviceWords:
    """Words on a device, computed by torch."""

    def __init__(self, size: int, bits: int, device: torch.device) -> None:
        self._bits, self.device, self._fine = bits, device, _Shift.to_multiples(bits)
        self._high = torch.zeros(size, dtype=torch.int64, device=device)
        self._low = torch.zeros(size, dtype=torch.int64, device=device)

    def add(self, delta: Tensor, weight: float, largest: float) -> None:
        """See `Words`."""
        for start in range(0, delta.numel(), _DEVICE_BLOCK):
            where = slice(start, start + _DEVICE_BLOCK)
            product = delta.detach()[where].to(self.device).double().mul_(weight)
            nearest = product + _WHOLE.number
            self._high[where] += nearest.view(torch.int64) - _WHOLE.bits
            product.sub_(nearest.sub_(_WHOLE.number)).add_(self._fine.number)
            self._low[where] += product.view(torch.int64) - self._fine.bits

    def add_whole(self, high: Tensor, low: Tensor) -> None:
        """See `Words`."""
        self._high += high.to(self.device)
        self._low += low.to(self.device)

    def carry(self) -> None:
        """See `Words`."""
        self._high.add_(self._low >> self._bits)
        self._low.bitwise_and_(2**self._bits - 1)

    def pieces(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """See `Words`."""
        self.carry()
        for start in range(0, len(self._high), _DEVICE_BLOCK):
            where = slice(start, start + _DEVICE_BLOCK)
            yield where, self._high[where], self._low[where]


@dataclass
class _Terms:
    """Counts the terms that were added to words in multiples of 2^-`bits` since their last carry.

    Parameters
    ----------
    whole, all
        Terms with a high word, and all.
    """

    bits: int
    whole: int = 0
    all: int = 0

    def __post_init__(self) -> None:
        self.fine = _Shift.to_multiples(self.bits)

    def counted(self, largest: float) -> bool:
        """Count a term with such a largest entry; return whether it has a high word."""
        has_high = largest > _NO_HIGH
        self.all += 1
        self.whole += has_high
        return has_high

    def carry(self, high: _IntVector, low: _IntVector) -> None:
        """Take the shifts off, and bring the low word into [0, 2^b)."""
        low -= self.fine.of(self.all)
        high += low >> self.bits
        high -= _WHOLE.of(self.whole)
        low &= 2**self.bits - 1

    def reset(self) -> None:
        """Begin anew after a carry."""
        self.whole = self.all = 0


def _add(
    part: npt.NDArray[np.float32],
    weight: float,
    fine: _Shift,
    high: _IntVector | None,
    low: _IntVector,
    scratch: _FloatVector,
) -> None:
    """Add weight·part, with the shifts, to both words; to the low one alone where `high` is None: it gets 0.

    NumPy's loops over a block take two thirds of the time of torch's, and of a small vector one third.
    """
    product, nearest = scratch[:, : len(part)]
    product[:] = part
    product *= weight
    if high is not None:
        np.add(product, _WHOLE.number, out=nearest)
        high += nearest.view(np.int64)
        nearest -= _WHOLE.number
        product -= nearest
    product += fine.number
    low += product.view(np.int64)

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
_SHIFT = 1.5 * 2.0**52
"""Added to a float64 within ±2^51, it leaves the nearest whole number, half to even, in the lowest bits:
three times as fast as rounding and converting."""
_SHIFT_BITS = int(torch.tensor(_SHIFT, dtype=torch.float64).view(torch.int64))


class Words(Protocol):
    """The words of a sum of vectors, shape [size]; what is added was checked to fit."""

    def add(self, delta: Tensor, weight: float) -> None:
        """Add weight·delta, of float32 entries; the low word grows by 2^52 at most."""

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
        self._bits = bits
        self._high, self._low = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self._scratch = np.empty((2, min(size, _BLOCK)))

    def add(self, delta: Tensor, weight: float) -> None:
        """See `Words`."""
        entries = delta.detach().numpy()
        for start in range(0, delta.numel(), _BLOCK):
            where = slice(start, start + _BLOCK)
            _add(entries[where], weight, self._bits, self._high[where], self._low[where], self._scratch)

    def add_whole(self, high: Tensor, low: Tensor) -> None:
        """See `Words`."""
        self._high += high.numpy()
        self._low += low.numpy()

    def carry(self) -> None:
        """See `Words`."""
        _carry(self._high, self._low, self._bits)

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
        self._size, self._bits, self._folder = size, bits, folder
        self._scratch = np.empty((2, _BLOCK))
        self._buffer = np.zeros(2 * _BLOCK, np.int64)
        self._empty = True
        try:
            self._file = TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - as long as the sum is there
        except OSError as error:
            raise not_written(folder, error) from error
        weakref.finalize(self, self._file.close)

    def add(self, delta: Tensor, weight: float) -> None:
        """See `Words`."""
        entries = delta.detach().numpy()
        for where, high, low in self._blocks():
            _add(entries[where], weight, self._bits, high, low, self._scratch)
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
            _carry(high, low, self._bits)
        self._empty = False

    def pieces(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """See `Words`."""
        for where, high, low in self._blocks(change=False):
            _carry(high, low, self._bits)
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
        self._bits, self.device = bits, device
        self._high = torch.zeros(size, dtype=torch.int64, device=device)
        self._low = torch.zeros(size, dtype=torch.int64, device=device)

    def add(self, delta: Tensor, weight: float) -> None:
        """See `Words`."""
        for start in range(0, delta.numel(), _DEVICE_BLOCK):
            where = slice(start, start + _DEVICE_BLOCK)
            product = delta.detach()[where].to(self.device).double().mul_(weight)
            nearest = product + _SHIFT
            self._high[where] += nearest.view(torch.int64) - _SHIFT_BITS
            product = product.sub_(nearest.sub_(_SHIFT)).mul_(2.0**self._bits).add_(_SHIFT)
            self._low[where] += product.view(torch.int64) - _SHIFT_BITS

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


def _add(
    part: npt.NDArray[np.float32],
    weight: float,
    bits: int,
    high: _IntVector,
    low: _IntVector,
    scratch: _FloatVector,
) -> None:
    """Add weight·part to both words, in place."""
    product, shifted = scratch[:, : len(part)]
    np.multiply(part, weight, out=product, dtype=np.float64)
    high += _whole(product, shifted)
    product -= shifted
    product *= 2.0**bits
    low += _whole(product, shifted)


def _carry(high: _IntVector, low: _IntVector, bits: int) -> None:
    high += low >> bits
    low &= 2**bits - 1


def _whole(numbers: _FloatVector, nearest: _FloatVector) -> _IntVector:
    """Return the whole numbers nearest to some within ±2^51; `nearest` is overwritten with them.

    NumPy's loops over a block take two thirds of the time of torch's, and of a small vector one third.
    """
    np.add(numbers, _SHIFT, out=nearest)
    found = nearest.view(np.int64) - _SHIFT_BITS
    nearest -= _SHIFT
    return found

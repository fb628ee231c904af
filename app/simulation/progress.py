"""Which client of a group a worker is at, and since when, where its parent can look at any moment."""

import struct
import time
from dataclasses import dataclass

from strategies.core.shared_memory import SharedMemory

_TIME = struct.Struct("<d")
_NUMBER = struct.Struct("<q")
_EVERYBODY = -1


@dataclass(frozen=True, eq=False)
class Turn:
    """Which message of a group is worked on, by its number; None: all, as their clients train together.

    `began` is by the clock `time.monotonic`, which all processes of a machine share.
    """

    number: int | None
    began: float


@dataclass(frozen=True, eq=False)
class Progress:
    """A piece of shared memory that a worker writes its turns into."""

    memory: SharedMemory

    def note(self, number: int | None) -> None:
        """Note whose turn it is from now on."""
        view = self.memory.view(_TIME.size + _NUMBER.size)
        # First the time: a parent that looks in between takes the turn before for a younger one, not older
        _TIME.pack_into(view, 0, time.monotonic())
        _NUMBER.pack_into(view, _TIME.size, _EVERYBODY if number is None else number)

    def read(self) -> Turn:
        """Return whose turn it is."""
        view = self.memory.view(_TIME.size + _NUMBER.size)
        (number,) = _NUMBER.unpack_from(view, _TIME.size)
        return Turn(None if number == _EVERYBODY else number, *_TIME.unpack_from(view, 0))

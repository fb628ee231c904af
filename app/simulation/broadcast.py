"""The models being sent: each is put into shared memory once, however many messages carry it.

A large model that lies in such memory already is not copied.
"""

import os
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from flwr.app import ArrayRecord

from app.messages.codec import as_flat, layout_size
from strategies.core.shared_memory import SharedMemory, descriptor_of
from strategies.core.wire import FlatRecord, Layout

_KEPT = 4  # Records between messages: a round's model, a reference, a control variate, the next model.


@dataclass(frozen=True, eq=False)
class Broadcast:
    """A vector with its layout at the start of shared memory; `number` is unique in this process."""

    number: int
    memory: SharedMemory
    layout: Layout

    @property
    def num_bytes(self) -> int:
        """Bytes of the vector."""
        return 4 * layout_size(self.layout)


@dataclass(frozen=True, eq=False)
class _Stamp:
    """The parts of a record, to notice that it was changed in place."""

    names: tuple[str, ...]
    parts: tuple[Any, ...]
    version: int

    @staticmethod
    def of(record: ArrayRecord) -> "_Stamp":
        if isinstance(record, FlatRecord) and record.flat is not None:
            flat = record.flat
            return _Stamp((), (flat,), 0 if flat.is_inference() else flat._version)
        return _Stamp(tuple(record), tuple(a.__dict__.get("data", a) for a in record.values()), 0)

    def same(self, other: "_Stamp") -> bool:
        if (self.names, self.version, len(self.parts)) != (other.names, other.version, len(other.parts)):
            return False
        return all(mine is theirs for mine, theirs in zip(self.parts, other.parts, strict=True))


@dataclass(frozen=True, eq=False)
class _Entry:
    record: "weakref.ref[ArrayRecord]"
    stamp: _Stamp
    broadcast: Broadcast | None


class Broadcasts:
    """The records sent lately, by identity."""

    def __init__(self) -> None:
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._numbers = count(1)

    def of(self, record: ArrayRecord) -> Broadcast | None:
        """Return the record in shared memory; None if it is not all float32 and has to travel as it is."""
        key = id(record)
        stamp = _Stamp.of(record)
        entry = self._entries.get(key)
        if entry is not None and entry.record() is record and entry.stamp.same(stamp):
            self._entries.move_to_end(key)
            return entry.broadcast
        self._drop(key)
        flat = as_flat(record)
        broadcast = None if flat is None else self._share(flat)
        self._entries[key] = _Entry(weakref.ref(record, self._dropper(key)), stamp, broadcast)
        return broadcast

    def trim(self) -> None:
        """Drop the records that were not sent for the longest time, beyond a few."""
        while len(self._entries) > _KEPT:
            self._drop(next(iter(self._entries)))

    @property
    def numbers(self) -> set[int]:
        """Numbers of the records that are still held."""
        return {e.broadcast.number for e in self._entries.values() if e.broadcast is not None}

    def close(self) -> None:
        """Drop all records."""
        for key in list(self._entries):
            self._drop(key)

    def _share(self, record: FlatRecord) -> Broadcast:
        assert record.flat is not None
        if (there := descriptor_of(record.flat)) is not None:
            return Broadcast(next(self._numbers), SharedMemory(os.dup(there)), record.layout)
        memory = SharedMemory.create()
        memory.put(record.flat)
        return Broadcast(next(self._numbers), memory, record.layout)

    def _drop(self, key: int) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None and entry.broadcast is not None:
            entry.broadcast.memory.close()

    def _dropper(self, key: int) -> Callable[["weakref.ref[ArrayRecord]"], None]:
        def drop(reference: "weakref.ref[ArrayRecord]") -> None:
            entry = self._entries.get(key)
            if entry is not None and entry.record is reference:
                self._drop(key)

        return drop

"""The reading half of an update log."""

import copy
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strategies.core.errors import BadInput, RunCorrupt
from strategies.core.layout import MAX_ENTRIES, Layout, is_large
from strategies.log import contents
from strategies.log.blobs import Blobs
from strategies.log.folder import INDEX
from strategies.log.index import Entry, Index
from strategies.log.keys import KEYS, LogKeys
from strategies.log.purge import Purge, purges_in
from strategies.log.retention import Retention

if TYPE_CHECKING:  # a log is checked without torch
    from torch import Tensor


PART = 1 << 20
"""Entries of a large model that are worked on at a time."""


class LogReader:
    """All that can be asked of a log; `UpdateLog` opens one and adds the writing half.

    Parameters
    ----------
    clients
        Says of a client-id whether the log is read for it; None: all are. Files, hashes, purges and the
        description are those of the whole log in any case.

    Attributes
    ----------
    layout : Layout
        Names and shapes behind the flat updates.
    retention : Retention
        What is kept.
    dtype : str
        Precision of the stored updates.

    Raises
    ------
    BadInput
        If the log is of another version.
    RunCorrupt
        If its index is damaged.
    """

    def __init__(self, path: Path, clients: Callable[[str], bool] | None = None) -> None:
        self.path = path
        self._clients = clients
        self._index = Index(path / INDEX)
        meta = self._index.meta()
        self.layout, self.retention, self.dtype = _parse(self._index.path, meta)
        self._blobs = Blobs(path, self.layout.size, LogKeys(Path(meta[KEYS])) if KEYS in meta else None)
        self._purged = self.purged()
        self._part: slice | None = None
        self._checked: set[Path] = set()

    def only(self, clients: Callable[[str], bool]) -> "LogReader":
        """Return the log of some clients alone, such as those of a group that was trained apart.

        A round in which none of them took part is not in it.

        Parameters
        ----------
        clients
            Says of a client-id whether it is one of them.
        """
        return LogReader(self.path, clients)

    def parts(self) -> "Iterator[tuple[slice, LogReader]]":
        """Yield parts of the model's entries, in order, each with a log that reads these alone of an update.

        What is done with a large model entry by entry is so done without a whole update in memory. Small
        models have a single part, and so have encrypted logs, whose files are read as a whole in any case.
        A file is compared with its hash when it is read in the first part, and only such files are read in
        the others.
        """
        size = self.layout.size
        if not self.has_parts:
            yield slice(0, size), self
            return
        part = copy.copy(self)
        part._checked = set()
        for start in range(0, size, PART):
            part._part = slice(start, min(start + PART, size))
            yield part._part, part

    @property
    def has_parts(self) -> bool:
        """Whether `parts` has more than one."""
        return self._part is None and is_large(self.layout.size) and not self.is_encrypted

    @property
    def size(self) -> int:
        """Entries of an update as it is read: those of the model, or of a part."""
        return self.layout.size if self._part is None else self._part.stop - self._part.start

    @property
    def keys(self) -> LogKeys | None:
        """The keys with which the updates are encrypted; None where they are not."""
        return self._blobs.keys

    def rounds(self) -> list[int]:
        """Return the complete rounds, in order."""
        return [number for number, _ in self._rounds()]

    def _rounds(self) -> list[tuple[int, bool]]:
        """Return the complete rounds, and whether each was a plain weighted average, in order."""
        rounds = self._index.rounds().items()
        if self._clients is None:
            return list(rounds)
        present = {entry.round for entry in self.entries()}
        return [(number, averaging) for number, averaging in rounds if number in present]

    def averaging_rounds(self) -> list[int]:
        """Return the rounds in which the model moved by exactly Σ weight·update, in order."""
        return [number for number, averaging in self._rounds() if averaging]

    @property
    def marked_round(self) -> int:
        """The round that was marked as the one to go back to; 0: none."""
        return contents.kept_round(self._index)

    def kept_rounds(self) -> list[int]:
        """Return the complete rounds whose single updates can be read, in order; none under `sum`."""
        return [number for number in self.rounds() if self.retention.keeps(number)]

    def clients(self) -> list[str]:
        """Return the ids of all clients that took part in a complete round, sorted."""
        return [i for i in self._index.clients() if self._clients is None or self._clients(i)]

    def entries(self, server_round: int | None = None, client_id: str | None = None) -> list[Entry]:
        """Return what is known of a round's updates, a client's or all, in order of round and client."""
        found = self._index.entries(server_round, client_id)
        return [e for e in found if self._clients is None or self._clients(e.client_id)]

    def purges(self) -> list[Purge]:
        """Return the purges so far, in order; the last one may be incomplete."""
        return purges_in(self._index.meta())

    def purged(self) -> dict[str, str]:
        """Return the clients whose updates were purged, and when."""
        return {client_id: purge.time for purge in self.purges() for client_id in purge.clients}

    def sha256(self) -> str:
        """Return the SHA-256 of the log, the last link of its chain; see `strategies.log.chain`."""
        return self._index.head()

    def summary(self) -> dict[str, Any]:
        """Return what a summary and a certificate state of the log: hash, retention, rounds, encryption."""
        return {
            "sha256": self.sha256(),
            "retention": str(self.retention),
            "rounds": len(self.rounds()),
            "encrypted": self.is_encrypted,
        }

    @property
    def is_encrypted(self) -> bool:
        """Whether the updates' files are encrypted."""
        return self._blobs.keys is not None

    def unreadable(self) -> list[str]:
        """Return the clients that were not purged and whose keys are not on this machine, sorted."""
        keys = self._blobs.keys
        return (
            [] if keys is None else [i for i in self.clients() if i not in self._purged and not keys.has(i)]
        )

    def delta(self, server_round: int, client_id: str) -> "Tensor":
        """Return one update, shape [size], float32.

        Raises
        ------
        BadInput
            If the client took no part in the round, was purged, or the retention does not keep its update.
        RunCorrupt
            If the file is missing or damaged.
        """
        found = self.entries(server_round, client_id)
        if not found:
            raise BadInput(f"update log: client '{client_id}' took no part in round {server_round}")
        return self.delta_of(found[0])

    def delta_of(self, entry: Entry) -> "Tensor":
        """Return the update of an entry of `entries`, shape [size], float32; see `delta`."""
        if not self.retention.keeps(entry.round):
            raise BadInput(
                f"update log: log.retention = '{self.retention}' keeps no update of round {entry.round}"
            )
        with self._unless_purged(entry.client_id):
            return self._read(entry).float()

    def _read(self, entry: Entry) -> "Tensor":
        """Return the vector in an entry's file as it was stored, shape [size]."""
        number, client_id, part = entry.round, entry.client_id, self._part
        if part is None:
            return self._blobs.read(number, client_id, entry.sha256)
        file = self._blobs.file(number, client_id)
        if part.start == 0:
            self._blobs.check(number, client_id, entry.sha256)
            self._checked.add(file)
        elif file not in self._checked:
            raise RunCorrupt(f"{file}: written while the log was read; do so again when the run is finished")
        return self._blobs.read_part(number, client_id, part)

    def updates(self, server_round: int) -> "Iterator[tuple[Entry, Tensor]]":
        """Yield a round's updates with their entries, shape [size], float32, one read at a time.

        Clients that were purged are left out. Raises as `delta` does.
        """
        if not self.retention.keeps(server_round):
            raise BadInput(
                f"update log: log.retention = '{self.retention}' keeps no update of round {server_round}"
            )
        for entry in self.entries(server_round):
            if entry.client_id not in self._purged:
                with self._unless_purged(entry.client_id):
                    update = self._read(entry).float()
                yield entry, update

    def weighted_sum(self, client_id: str) -> "Tensor":
        """Return Σ_t weight·update of a client over all rounds, shape [size], float32.

        Raises
        ------
        BadInput
            If the client took part in no round, was purged, or the retention does not keep all its updates.
        RunCorrupt
            If a file is missing or damaged.
        """
        entries = self.entries(client_id=client_id)
        if not entries:
            raise BadInput(
                f"update log: no client '{client_id}'; it has {', '.join(self.clients()) or 'none yet'}"
            )
        with self._unless_purged(client_id):
            if self.retention.kind == "sum":  # Read as a whole: it may be replaced meanwhile
                return self._sum(client_id, entries)
            return by_parts(self, lambda log, part: log._sum(client_id, entries))

    def _sum(self, client_id: str, entries: list[Entry]) -> "Tensor":
        if self.retention.kind == "sum":
            return contents.current_sum(self._index, self._read, client_id)
        if lost := [entry.round for entry in entries if not self.retention.keeps(entry.round)]:
            raise BadInput(
                f"update log: log.retention = '{self.retention}' keeps no update of client '{client_id}' in "
                f"round {lost[0]}; the sum over all rounds needs 'full' or 'sum'"
            )
        return contents.add_up(entries, self._read, self.size)

    def verify(self) -> dict[str, str]:
        """Check every file against its hash, and the index against its own.

        Returns
        -------
        dict
            What is wrong, by file (``log/00003/7.safetensors``); empty if nothing is. What is not named is
            sound, or was purged. Without a client's key its files' bytes are checked all the same.
        """
        try:
            purged = self.purged()
        except RunCorrupt:
            purged = {}  # The check finds that, too
        return contents.find_damage(self._index, self._blobs, self.retention, purged)

    @contextmanager
    def _unless_purged(self, client_id: str) -> Iterator[None]:
        """Report purged data as purged, not as damage."""
        try:
            if client_id in self._purged:
                raise RunCorrupt(f"{self.path}: client '{client_id}' is purged")
            yield
        except RunCorrupt:
            self._purged = self.purged()  # Perhaps by another process meanwhile
            if client_id not in self._purged:
                raise
            since = self._purged[client_id]
            raise BadInput(f"update log: the updates of client '{client_id}' were purged, {since}") from None

    def stored_bytes(self) -> int:
        """Return the size of all files of the log."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())


def by_parts(log: LogReader, make: "Callable[[LogReader, slice], Tensor]") -> "Tensor":
    """Return a vector that is made of a log part by part, shape [log.layout.size], float32.

    Parameters
    ----------
    make
        Returns some entries, float32, from the log of these and where they lie; see `LogReader.parts`.
    """
    from strategies.core.shared_memory import new_vector

    if not log.has_parts:
        return make(log, slice(0, log.size))
    vector = new_vector(log.size)
    for part, of_part in log.parts():
        vector[part] = make(of_part, part)
    return vector


def mean_update(log: LogReader, entries: Collection[Entry]) -> "Tensor | None":
    """Return the weighted mean of logged updates, shape [log.size], float64; None if none has a weight."""
    import torch

    weight = sum(entry.weight for entry in entries)
    if not weight:
        return None
    total = torch.zeros(log.size, dtype=torch.float64)
    for entry in entries:
        total.add_(log.delta_of(entry), alpha=entry.weight / weight)
    return total


def _parse(path: Path, meta: Mapping[str, str]) -> tuple[Layout, Retention, str]:
    try:
        layout = json.loads(meta["layout"])
        names, shapes = tuple(layout["names"]), tuple(tuple(shape) for shape in layout["shapes"])
        sound = all(isinstance(name, str) for name in names) and len(names) == len(shapes)
        sound = sound and all(type(side) is int and side >= 0 for shape in shapes for side in shape)
        found = Layout(names, shapes), Retention.parse(meta["retention"]), meta["dtype"]
        sound = sound and found[0].size <= MAX_ENTRIES
    except (KeyError, TypeError, ValueError, RecursionError):
        sound = False
    if not sound:
        raise RunCorrupt(f"{path}: damaged, it does not say of which model it is the log; restore a copy")
    return found

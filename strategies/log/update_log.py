"""The update log: what each client contributed to each round, so that it can be taken out again.

Per round and client: the update that was aggregated (new minus old), the weight it had, its number of
examples, its norm and the hash of its file. The index is SQLite (`strategies.log.index`), the updates are
safetensors files (`strategies.log.blobs`), and what is kept is up to the retention
(`strategies.log.retention`).

A round counts once it is committed. Its files are written while replies arrive, and nothing waits for the
disk; the commit waits until all of them are on it, and then writes the index in one transaction. So

- a killed process leaves files that the index does not name, and the next writer deletes them. What it wrote
  before is with the kernel and not lost; the last complete round is whole;
- after a power loss the same holds, as the index never names a file that was not forced to the disk before.

Under `sum` a client's new sum is a new file. The old one is deleted when the next round begins: by then
the round before is in a checkpoint, so a run can be rewound to its last checkpoint.
"""

import json
import secrets
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Self, final

from strategies.core.errors import LetheError
from strategies.core.layout import Layout
from strategies.log import contents
from strategies.log.background import Background
from strategies.log.folder import INDEX, check_folder, make_folder
from strategies.log.index import Entry, Index
from strategies.log.keys import KEYS, LogKeys
from strategies.log.lock import WriterLock, kept_if_opened
from strategies.log.purge import begin_purge, complete_purge
from strategies.log.reading import LogReader
from strategies.log.retention import Retention, check_dtype
from strategies.log.shares import ShareOf, by_their_sum, in_one
from strategies.log.spool import Spool

if TYPE_CHECKING:  # a log is checked without torch
    from torch import Tensor

    from strategies.log.round_writer import RoundWriter

__all__ = ["Entry", "UpdateLog"]


@final
class UpdateLog(LogReader):
    """An update log in a folder; use `create` or `open`, and `close` what was opened for writing.

    Any number of processes may read while one writes.

    Parameters
    ----------
    lock
        Held by a writer; None for reading only.
    """

    def __init__(self, path: Path, lock: WriterLock | None) -> None:
        super().__init__(path)
        self._lock = lock
        self._background = Background()
        self._spool = Spool(path, secrets.token_bytes(32) if self.is_encrypted else None)
        self._writer: RoundWriter | None = None
        self._trusted_from = max(self.rounds(), default=0) + 1

    @staticmethod
    def create(
        path: Path,
        layout: Layout,
        retention: str = "full",
        dtype: str = "float32",
        keys: Path | None = None,
    ) -> "UpdateLog":
        """Make an empty log and open it for writing.

        Parameters
        ----------
        path
            A folder that is missing, empty, or was left half written by a killed `create`.
        retention
            ``full``, ``interval:<k>`` or ``sum``.
        dtype
            Precision of the stored updates; ``sum`` takes ``float32`` only.
        keys
            Folder for the keys with which the updates are encrypted, not the log's own; None: they are not.

        Raises
        ------
        BadInput
            If the folder holds something, or the retention or precision is not allowed.
        LetheError
            If the disk does not take the log.
        """
        check_dtype(Retention.parse(retention), dtype)
        make_folder(path)
        shapes = json.dumps({"names": layout.names, "shapes": layout.shapes})
        described = {"layout": shapes, "retention": retention, "dtype": dtype}
        if keys is not None:
            described[KEYS] = str(LogKeys.create(keys).folder)
        with kept_if_opened(path) as lock:
            Index.create(path / INDEX, described)
            return UpdateLog(path, lock)

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether a folder holds a log, whole or damaged; a killed `create` leaves none."""
        return (path / INDEX).exists()

    @staticmethod
    def open(path: Path, *, write: bool = False) -> "UpdateLog":
        """Open an existing log; for writing, what a killed writer left is deleted, a killed purge completed.

        Parameters
        ----------
        write
            Whether rounds will be added or rewound.

        Raises
        ------
        BadInput
            If there is no log, or it is of another version.
        RunCorrupt
            If the log is half written or its index is damaged.
        LetheError
            If it is to be written and another process does so already.
        """
        check_folder(path)
        if not write:
            return UpdateLog(path, None)
        with kept_if_opened(path) as lock:
            log = UpdateLog(path, lock)
            complete_purge(log._index, log._blobs)
            contents.remove_orphans(log._index, log._blobs, log.retention)
            return log

    def __enter__(self) -> Self:
        """Return the log."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the log."""
        self.close()

    def close(self) -> None:
        """Give up an unfinished round and let others write; a second close does nothing."""
        self.abandon()
        self._background.close()
        self._spool.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def begin_round(
        self, server_round: int, expected_weight: float | None = None, share_of: ShareOf = in_one
    ) -> None:
        """Begin a round; the one before it must be safe in the run's checkpoint.

        Parameters
        ----------
        expected_weight
            What the raw weights will probably add up to. It changes nothing but the time that `sum` takes:
            if it is right, sums are ready when the last update has come, otherwise they are made then.
        share_of
            From a client-id to the clients whose weights add up to 1 together; neutral: those of all do.

        Raises
        ------
        LetheError
            If the log is open for reading only, a round is unfinished, or this round is not after the last.
        """
        from strategies.log.round_writer import Plan, RoundWriter

        self._check_writable()
        self._check_next(server_round)
        sums = {}
        if self.retention.kind == "sum":
            self._background.submit(self._blobs.remove, contents.superseded_sums(self._index))
            sums = self._index.newest()
        plan = Plan(server_round, expected_weight, sums, self._trusted_from, share_of)
        dtype = check_dtype(self.retention, self.dtype)
        self._writer = RoundWriter(self._blobs, self.retention, dtype, plan, self._background, self._spool)

    def add(
        self,
        server_round: int,
        client_id: str,
        weight_raw: float,
        num_examples: int,
        delta: "Tensor",
        norm: float,
    ) -> None:
        """Add one update to the round that was begun; a small tensor may be changed afterwards.

        Parameters
        ----------
        client_id
            Whose update; once per round.
        weight_raw
            Its aggregation weight before division by the sum of the round's weights, or by what
            `commit_round` is told; above 0.
        num_examples
            How many examples the client trained on.
        delta
            New minus old, shape [layout.size], float32. A large one must not be changed until `written`.

        Raises
        ------
        LetheError
            If the call does not fit the round, float16 cannot hold the update, or the disk did not take one
            of the updates so far: writing goes on in the background, so its errors come with a later call.
        """
        writer = self._begun(server_round)
        if delta.shape != (self.layout.size,):
            raise LetheError(f"update log: shape {tuple(delta.shape)}, expected ({self.layout.size},)")
        if client_id in self._purged:
            raise LetheError(f"update log: client '{client_id}' was purged; its updates are logged no more")
        writer.add(client_id, weight_raw, num_examples, delta, norm)

    def written(self, server_round: int) -> None:
        """Wait until large updates that were added are written, so that they can be let go; else do nothing.

        Raises
        ------
        LetheError
            If the disk did not take one of them.
        """
        self._begun(server_round).written()

    def commit_round(
        self, server_round: int, averaging: bool, divisor_of: Callable[[int], float | None] = by_their_sum
    ) -> None:
        """Make the round count.

        Parameters
        ----------
        averaging
            Whether the model moved by exactly Σ weight·delta; only then does subtraction take a client out.
        divisor_of
            What the raw weights of a share were divided by; None: their sum, so that they add up to 1.

        Raises
        ------
        LetheError
            If the disk did not take it; the round is given up then, and all earlier ones stay.
        """
        writer = self._begun(server_round)
        try:
            self._index.commit(server_round, averaging, writer.finish(divisor_of))
        except BaseException:
            self.abandon()
            raise
        self._writer = None

    def abandon(self) -> None:
        """Give up the round that was begun, if there is one."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abandon()

    def compact(self) -> None:
        """Delete what only `rewind` needs; under `sum` that leaves one file per client.

        Call it once the last round is in a checkpoint.
        """
        self._check_writable()
        if self.retention.kind == "sum":
            self._blobs.remove(contents.superseded_sums(self._index))

    def rewind(self, last_round: int) -> None:
        """Forget all rounds after `last_round`.

        Raises
        ------
        BadInput
            If retention `sum` no longer has the sums of that round; nothing is changed then.
        LetheError
            If the log is open for reading only.
        """
        self._check_writable()
        self.abandon()
        gone = [number for number in self.rounds() if number > last_round]
        if self.retention.kind == "sum":
            contents.check_rewindable(self._index, self._blobs, last_round)
        self._index.rewind(last_round)
        for number in gone:
            self._blobs.remove_round(number)

    def keep(self, server_round: int) -> None:
        """Mark a complete round as the one to go back to; call it once that round is in a checkpoint.

        Under `sum` its sums stay until another round is marked.

        Raises
        ------
        LetheError
            If the log is open for reading only.
        """
        self._check_writable()
        before = contents.kept_round(self._index)
        if before == server_round:
            return
        self._index.describe(contents.KEPT, str(server_round))
        if self.retention.kind == "sum":
            last = max(self.rounds(), default=0)
            needed = (contents.sums_of(self._index, number) for number in (server_round, last - 1, last))
            self._blobs.remove(contents.sums_of(self._index, before).difference(*needed))

    def purge(self, client_ids: Collection[str]) -> None:
        """Erase clients' updates, so that nothing of them can be read back; see `strategies.log.purge`.

        A client that was purged before, or never took part, is left out.

        Raises
        ------
        BadInput
            If the log is encrypted and its keys are not on this machine.
        RunCorrupt
            If the index is damaged; nothing is erased then.
        LetheError
            If the log is open for reading only, a round is unfinished, or a file cannot be overwritten; the
            purge is completed when the log is next opened for writing.
        """
        self._check_writable()
        if self._writer is not None:
            raise LetheError(f"update log: cannot purge, round {self._writer.round} is unfinished")
        purged = self.purged()
        if gone := [i for i in self.clients() if i in client_ids and i not in purged]:
            if self._blobs.keys is not None:
                self._blobs.keys.check_here()
            begin_purge(self._index, gone)
            complete_purge(self._index, self._blobs)
        self._purged = self.purged()

    def _check_writable(self) -> None:
        if self._lock is None:
            raise LetheError(f"{self.path}: the update log was opened for reading, or is closed")

    def _check_next(self, server_round: int) -> None:
        last = max(self.rounds(), default=0)
        if self._writer is None and server_round > last:
            return
        reason = f"round {self._writer.round} is unfinished" if self._writer else f"round {last} is the last"
        raise LetheError(
            f"update log: cannot begin round {server_round}, {reason}; commit, abandon or rewind"
        )

    def _begun(self, server_round: int) -> "RoundWriter":
        self._check_writable()
        if self._writer is None or self._writer.round != server_round:
            raise LetheError(f"update log: round {server_round} was not begun")
        return self._writer

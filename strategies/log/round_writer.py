"""One round on its way into the log: updates come one at a time, and count together or not at all."""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import ParamSpec

import numpy as np
from torch import Tensor

from strategies.core.errors import LetheError
from strategies.core.layout import is_large
from strategies.log.background import Background
from strategies.log.blobs import PIECE, Blobs, pack, pack_pieces, values_in
from strategies.log.index import Entry
from strategies.log.pieces import Chunk, Pieces
from strategies.log.retention import Retention
from strategies.log.shares import ShareOf, by_their_sum, in_one
from strategies.log.spool import Spool

_P = ParamSpec("_P")
_SMALL = 2**15
"""Entries of an update up to which handing it to another thread costs more than writing it."""
Written = Future[str | None] | str | None
"""The SHA-256 of a file, perhaps of one that is being written; None: there is no file, or not yet."""


@dataclass(frozen=True)
class Plan:
    """What is known of a round before its first update.

    Parameters
    ----------
    expected_weight
        What the updates' weights will probably add up to; None: unknown.
    sums
        Under retention `sum`, each client's last entry before this round.
    trusted_from
        Sums of this round or a later one were written by this process and need no check.
    share_of
        Whose weights add up to 1 together.
    """

    round: int
    expected_weight: float | None
    sums: Mapping[str, Entry]
    trusted_from: int
    share_of: ShareOf = in_one


@dataclass(frozen=True)
class _Update:
    """An update's part of its entry; `sha256` is known once the file is written."""

    weight_raw: float
    num_examples: int
    norm: float
    sha256: Written


class RoundWriter:
    """Writer of one round.

    Under retention `sum` an update's weight is known only when all have come. The updates wait in the spool,
    and the sums are made at the end; or at once, with the expected weights, and again if these were wrong.
    """

    def __init__(
        self,
        blobs: Blobs,
        retention: Retention,
        dtype: str,
        plan: Plan,
        background: Background,
        spool: Spool,
    ) -> None:
        self.round = plan.round
        self._plan = plan
        self._blobs = blobs
        self._retention = retention
        self._dtype = dtype
        self._background = background
        self._spool = spool
        self._updates: dict[str, _Update] = {}

    def add(self, client_id: str, weight_raw: float, num_examples: int, delta: Tensor, norm: float) -> None:
        """Take one update; see `UpdateLog.add`."""
        if client_id in self._updates:
            raise LetheError(f"update log: client '{client_id}' occurs twice in round {self.round}")
        if not (math.isfinite(weight_raw) and weight_raw > 0):
            raise LetheError(
                f"update log: client '{client_id}' has weight {weight_raw}, expected a positive number"
            )
        sha256: Written = None
        small = delta.numel() <= _SMALL
        self._background.make_room()
        if self._retention.keeps(self.round):
            content = self._packed(client_id, delta)
            sha256 = self._done(small, self._blobs.write, self.round, client_id, content)
        elif self._retention.kind == "sum":
            content = self._packed(client_id, delta)
            sha256 = self._done(small, self._spooled, client_id, content, weight_raw)
        self._updates[client_id] = _Update(weight_raw, num_examples, norm, sha256)

    def _packed(self, client_id: str, delta: Tensor) -> bytearray | Pieces:
        """Return an update's file; of a large update in pieces, where sums are not made of encrypted ones."""
        in_pieces = is_large(delta.numel()) and (self._retention.kind != "sum" or self._blobs.keys is None)
        return (pack_pieces if in_pieces else pack)(client_id, delta, self._dtype)

    def written(self) -> None:
        """Wait until the updates that were added are written, where these are large."""
        if is_large(self._blobs.size):
            self._background.finish()

    def _done(
        self, small: bool, task: Callable[_P, str | None], *args: _P.args, **kwargs: _P.kwargs
    ) -> Written:
        """Do a small task at once, and have a large one done in the background."""
        do = self._background.at_once if small else self._background.submit
        return do(task, *args, **kwargs)

    def finish(self, divisor_of: Callable[[int], float | None] = by_their_sum) -> list[Entry]:
        """Wait until the round is on the disk and return its entries; see `UpdateLog.commit_round`."""
        self._background.finish()
        totals = self._totals(divisor_of)
        hashes = {client_id: update.sha256 for client_id, update in self._updates.items()}
        if self._retention.kind == "sum" and set(totals.values()) != {self._plan.expected_weight}:
            for client_id, update in self._updates.items():
                hashes[client_id] = self._background.submit(
                    self._summed_again, client_id, update.weight_raw / totals[client_id]
                )
            self._background.finish()
        self._spool.clear()
        on_disk = [client_id for client_id, sha256 in hashes.items() if sha256 is not None]
        self._blobs.sync(self.round, on_disk, keep_cached=self._retention.kind == "sum")
        return [self._entry(client_id, totals[client_id], hashes[client_id]) for client_id in self._updates]

    def _totals(self, divisor_of: Callable[[int], float | None]) -> dict[str, float]:
        """Return what each client's raw weight is divided by, by client-id."""
        shares: dict[int, list[float]] = {}
        for client_id, update in self._updates.items():
            shares.setdefault(self._plan.share_of(client_id), []).append(update.weight_raw)
        sums = {share: divisor_of(share) or math.fsum(weights) for share, weights in shares.items()}
        return {client_id: sums[self._plan.share_of(client_id)] for client_id in self._updates}

    def abandon(self) -> None:
        """Delete what was written of the round."""
        self._background.drop()
        self._blobs.remove_round(self.round)
        self._spool.clear()

    def _spooled(self, client_id: str, content: bytearray | Pieces, weight_raw: float) -> str | None:
        self._spool.write(client_id, content)
        expected = self._plan.expected_weight
        return None if expected is None else self._summed(client_id, content, weight_raw / expected)

    def _summed_again(self, client_id: str, weight: float) -> str:
        if is_large(self._blobs.size) and self._blobs.keys is None:
            return self._summed_pieces(client_id, self._spool.pieces(client_id, 4 * PIECE), weight)
        return self._summed(client_id, self._spool.read(client_id), weight)

    def _summed(self, client_id: str, content: bytearray | Pieces, weight: float) -> str:
        """Write the client's sum after this round, S + w·δ, to a file of its own; the old sum stays."""
        if isinstance(content, Pieces):
            return self._summed_pieces(client_id, content, weight)
        values = values_in(content, self._blobs.size)
        np.multiply(values, np.float32(weight), out=values)
        if (old := self._plan.sums.get(client_id)) is not None:
            known = old.round >= self._plan.trusted_from
            self._blobs.add_to(values, old.round, client_id, None if known else old.sha256)
        return self._blobs.write(self.round, client_id, content)

    def _summed_pieces(self, client_id: str, content: Pieces, weight: float) -> str:
        """Write the same sum a piece at a time."""
        old = self._plan.sums.get(client_id)

        def make() -> Iterator[Chunk]:
            parts = iter(content.of_size(4 * PIECE, first=len(content) - 4 * self._blobs.size))
            yield next(parts)
            known = None if old is None or old.round >= self._plan.trusted_from else old.sha256
            before = None if old is None else self._blobs.parts(old.round, client_id, known)
            for part in parts:
                values = np.frombuffer(part, np.float32) * np.float32(weight)
                if before is not None:
                    values += next(before)[1]
                yield values.data.cast("B")

        return self._blobs.write(self.round, client_id, Pieces(len(content), make))

    def _entry(self, client_id: str, total: float, sha256: Written) -> Entry:
        update = self._updates[client_id]
        digest = sha256.result() if isinstance(sha256, Future) else sha256
        weight = update.weight_raw / total
        return Entry(self.round, client_id, update.num_examples, weight, update.norm, digest)

"""One round on its way into the log: updates come one at a time, and count together or not at all."""

import math
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from strategies.errors import LetheError
from strategies.log.background import Background
from strategies.log.blobs import Blobs, pack, unpack
from strategies.log.index import Entry
from strategies.log.retention import Retention
from strategies.log.spool import Spool


@dataclass(frozen=True)
class _Update:
    """What is remembered of an update besides its entries; `sha256` is known once it is written."""

    weight_raw: float
    num_examples: int
    norm: float
    sha256: Future[str] | None


class RoundWriter:
    """Writer of one round.

    Parameters
    ----------
    blobs
        Where the files go.
    retention, dtype
        What is kept, and how precisely.
    server_round
        Which round.
    background
        What writes meanwhile.
    spool
        Where updates wait for the sum of the round's weights, under retention `sum`.
    """

    def __init__(
        self,
        blobs: Blobs,
        retention: Retention,
        dtype: torch.dtype,
        server_round: int,
        background: Background,
        spool: Spool,
    ) -> None:
        self.round = server_round
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
        sha256 = None
        self._background.make_room()
        if self._retention.keeps(self.round):
            content = pack(client_id, delta, self._dtype)
            sha256 = self._background.submit(self._blobs.write, self.round, client_id, content)
        elif self._retention.kind == "sum":
            content = pack(client_id, delta, self._dtype)
            self._background.submit(self._spool.write, client_id, content)
        self._updates[client_id] = _Update(weight_raw, num_examples, norm, sha256)

    def finish(self, sums: Mapping[str, Entry], trusted_from: int) -> list[Entry]:
        """Wait until the round is on the disk and return its entries.

        Parameters
        ----------
        sums
            Under retention `sum`, each client's last entry before this round.
        trusted_from
            Sums of this round or a later one were written by this process and need no check.
        """
        self._background.finish()
        total = math.fsum(update.weight_raw for update in self._updates.values())
        weights = {client_id: update.weight_raw / total for client_id, update in self._updates.items()}
        hashes = {client_id: update.sha256 for client_id, update in self._updates.items()}
        if self._retention.kind == "sum":
            for client_id, weight in weights.items():
                old = sums.get(client_id)
                trusted = old is not None and old.round >= trusted_from
                hashes[client_id] = self._background.submit(self._add_to_sum, client_id, weight, old, trusted)
            self._background.finish()
            self._spool.clear()
        on_disk = [client_id for client_id, sha256 in hashes.items() if sha256 is not None]
        self._blobs.sync(self.round, on_disk, keep_cached=self._retention.kind == "sum")
        return [self._entry(client_id, weights[client_id], hashes[client_id]) for client_id in self._updates]

    def abandon(self) -> None:
        """Delete what was written of the round."""
        self._background.drop()
        self._blobs.remove_round(self.round)
        self._spool.clear()

    def _add_to_sum(self, client_id: str, weight: float, old: Entry | None, trusted: bool) -> str:
        """Write the client's sum after this round, S + w·δ, to a file of its own; the old sum stays."""
        content = self._spool.read(client_id)
        values = unpack(content).numpy()
        np.multiply(values, np.float32(weight), out=values)
        if old is not None:
            total = self._blobs.read(old.round, client_id, None if trusted else old.sha256)
            np.add(values, total.numpy(), out=values)
        return self._blobs.write(self.round, client_id, content)

    def _entry(self, client_id: str, weight: float, sha256: Future[str] | None) -> Entry:
        update = self._updates[client_id]
        digest = None if sha256 is None else sha256.result()
        return Entry(self.round, client_id, update.num_examples, weight, update.norm, digest)

"""What an update log's folder must hold, given its index, and what can be computed from that."""

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from strategies.core.errors import BadInput, RunCorrupt
from strategies.log.blobs import Blobs
from strategies.log.index import Entry, Index
from strategies.log.retention import Retention

if TYPE_CHECKING:  # a log is checked without torch
    from torch import Tensor

    Read = Callable[[Entry], Tensor]

KEPT = "kept"
"""In a log's description: the round that a rewind must be able to go back to; absent: none in particular."""


def superseded_sums(index: Index) -> list[tuple[int, str]]:
    """Return round and client of the sums that the last round replaced: only a rewind by one needs them.

    Those of the round that is kept are not among them.
    """
    last_round = max(index.rounds(), default=0)
    before, kept = index.newest(last_round), sums_of(index, kept_round(index))
    took_part = (entry.client_id for entry in index.entries(last_round))
    found = [(before[client_id].round, client_id) for client_id in took_part if client_id in before]
    return [blob for blob in found if blob not in kept]


def kept_round(index: Index) -> int:
    """Return the round that is kept; 0: none.

    Raises
    ------
    RunCorrupt
        If the description holds something else.
    """
    text = index.meta().get(KEPT, "0")
    if not text.isdecimal():
        raise RunCorrupt(f"{index.path}: damaged, '{text}' is no round; restore it from a copy")
    return int(text)


def sums_of(index: Index, server_round: int) -> set[tuple[int, str]]:
    """Return round and client of the sums as they were after a round."""
    return {(entry.round, client_id) for client_id, entry in index.newest(server_round + 1).items()}


def kept_entries(index: Index, retention: Retention) -> list[Entry]:
    """Return the entries whose files must exist."""
    entries = index.newest().values() if retention.kind == "sum" else index.entries()
    return [entry for entry in entries if entry.sha256 is not None]


def remove_orphans(index: Index, blobs: Blobs, retention: Retention) -> None:
    """Delete the files that the index does not name: those of a round that was never completed."""
    wanted = [(entry.round, entry.client_id) for entry in kept_entries(index, retention)]
    if retention.kind == "sum":
        wanted += [*superseded_sums(index), *sums_of(index, kept_round(index))]
    blobs.keep_only({blobs.file(server_round, client_id) for server_round, client_id in wanted})


def find_damage(
    index: Index, blobs: Blobs, retention: Retention, purged: Collection[str] = ()
) -> dict[str, str]:
    """Return what is wrong, by file; see `UpdateLog.verify`. No file of a purged client is expected."""
    index_file = str(index.path.relative_to(blobs.path.parent))
    try:
        found = {index_file: damage} if (damage := index.damage()) is not None else {}
        entries = [e for e in kept_entries(index, retention) if e.client_id not in purged]
    except RunCorrupt as error:
        return {index_file: str(error)}
    for entry in entries:
        try:
            blobs.check(entry.round, entry.client_id, entry.sha256)
        except RunCorrupt as error:
            found[blobs.label(entry.round, entry.client_id)] = str(error)
    return found


def add_up(entries: Iterable[Entry], read: "Read", size: int) -> "Tensor":
    """Return Σ weight·update over entries whose updates are kept, shape [size], float32; added in float64."""
    import torch

    total = torch.zeros(size, dtype=torch.float64)
    for entry in entries:
        total += entry.weight * read(entry).double()
    return total.float()


def current_sum(index: Index, read: "Read", client_id: str) -> "Tensor":
    """Return a client's running sum, shape [size], float32.

    A writer replaces sums while this reads, so a file that is gone is looked up once more.
    """
    entry = index.entries(client_id=client_id)[-1]
    try:
        return read(entry)
    except RunCorrupt:
        newer = index.entries(client_id=client_id)[-1]
        if newer == entry:
            raise
        return read(newer)


def check_rewindable(index: Index, blobs: Blobs, last_round: int) -> None:
    """Make sure that each client's sum after a round is still there; BadInput if it is not."""
    for client_id, entry in index.newest(last_round + 1).items():
        if entry.sha256 is not None and not blobs.file(entry.round, client_id).exists():
            raise BadInput(
                f"update log: cannot go back to round {last_round}, {blobs.label(entry.round, client_id)} is "
                "gone; log.retention = 'sum' goes back by one round at most, start the run anew"
            )

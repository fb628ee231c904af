"""Purging a client: nothing of its updates can be read back from the log, and that of the others stays whole.

Where the log is encrypted the client's key is destroyed before anything else: from then on every copy of its
updates is noise, those in backups included. The client's files are overwritten and deleted, under `sum` its
running sum likewise. Its entries become
tombstones: norm, example count and hash go. Round, client and weight stay: without them a round's weights
would not sum to 1, and methods could not tell which rounds the client had a part in. The weight is no secret
that the others' entries do not give away: it is what theirs lack to 1. What SQLite keeps of old rows, in free
pages and in its journal, is overwritten.

The log says in its description what is being purged before anything is erased, and what it was when it is
done. A purge that was killed is completed when the log is next opened for writing; readers take a client
for gone as soon as its purge has begun.

See `strategies.runs.files.erase` for what overwriting does not promise. Files that were deleted in the
ordinary course of things before (sums that a later round replaced, rounds that were given up) were not
overwritten.
"""

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace

from strategies.core.errors import RunCorrupt
from strategies.log.blobs import Blobs
from strategies.log.index import Index

_KEY = "purges"


@dataclass(frozen=True)
class Purge:
    """One purge, as the log's description records it.

    Parameters
    ----------
    clients
        Whose updates were erased.
    time
        When it began, UTC, ISO 8601.
    sha256_before, sha256_after
        Of the log (see `strategies.log.chain`); after: None while it is not complete.
    """

    clients: tuple[str, ...]
    time: str
    sha256_before: str
    sha256_after: str | None = None


def purges_in(meta: Mapping[str, str]) -> list[Purge]:
    """Return the purges that a log's description records, in order.

    Raises
    ------
    RunCorrupt
        If it records something else.
    """
    try:
        recorded = json.loads(meta.get(_KEY, "[]"))
        found = [Purge(**{**each, "clients": tuple(map(str, each["clients"]))}) for each in recorded]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise RunCorrupt("update log: damaged, what it says of purges is none; restore a copy") from None
    return found


def begin_purge(index: Index, client_ids: Collection[str]) -> None:
    """Record that clients are to be purged; from here on there is no way back.

    Raises
    ------
    RunCorrupt
        If the index is damaged: reducing its entries would hide that.
    """
    if (damage := index.damage()) is not None:
        raise RunCorrupt(f"{index.path}: {damage}; restore it from a copy before anything is purged")
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    _record(index, [*purges_in(index.meta()), Purge(tuple(client_ids), began, index.head())])


def complete_purge(index: Index, blobs: Blobs) -> None:
    """Complete the last purge if it was interrupted.

    Raises
    ------
    LetheError
        If a file cannot be overwritten; the next attempt goes on from there.
    """
    recorded = purges_in(index.meta())
    if not recorded or recorded[-1].sha256_after is not None:
        return
    for client_id in recorded[-1].clients:
        blobs.erase(client_id)
    index.bury(recorded[-1].clients)
    _record(index, [*recorded[:-1], replace(recorded[-1], sha256_after=index.head())])


def _record(index: Index, purges: Collection[Purge]) -> None:
    index.describe(_KEY, json.dumps([asdict(purge) for purge in purges]))

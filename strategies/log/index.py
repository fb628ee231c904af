"""The index of an update log: one SQLite file that says what was kept, and the weight of each update.

The tables: `meta` (key, value), `rounds` (a row per complete round), `entries` (a row per round and client).

A round is written in one transaction, and exists once that is through. The journal is SQLite's ordinary one,
no write-ahead log: the only writer is busy for milliseconds once a round, so readers hardly ever wait, and
one file can be copied, put on a network drive or read from a read-only folder, where a write-ahead log needs
shared memory beside it. `synchronous = EXTRA` makes a finished transaction survive a power loss. A reader
opens the file for writing although it never writes: after a crash, the first to come must roll the
unfinished transaction back.

SQLite does not notice a flipped byte in a number, so each round's row holds a link of a hash chain over the
rounds (see `strategies.log.chain`), and the description the last link.

An entry whose update was purged (see `strategies.log.purge`) is reduced to a tombstone: round, client and
weight stay; the rest is 0 or NULL.
"""

import hashlib
import json
import math
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any

from strategies.core.errors import BadInput, LetheError, RunCorrupt
from strategies.core.names import client_sort_key
from strategies.log import chain
from strategies.runs.files import TEMPORARY, erase, sync_folder

FORMAT = "lethe-update-log"
VERSION = "2"
"""Of the log's layout; another version is refused."""

_SCHEMA = """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE rounds (round INTEGER PRIMARY KEY, averaging INTEGER NOT NULL, digest TEXT NOT NULL);
    CREATE TABLE entries (
        round INTEGER NOT NULL REFERENCES rounds, client_id TEXT NOT NULL, num_examples INTEGER NOT NULL,
        weight REAL NOT NULL, norm REAL NOT NULL, sha256 TEXT, PRIMARY KEY (round, client_id)
    ) WITHOUT ROWID;
    CREATE INDEX entries_by_client ON entries (client_id, round);
"""
_BURY_ENTRY = "UPDATE entries SET num_examples = 0, norm = 0.0, sha256 = NULL WHERE client_id = ?"
_ENTRY = "round, client_id, num_examples, weight, norm, sha256"
_NEWEST = f"""
    SELECT {_ENTRY} FROM entries JOIN (SELECT DISTINCT client_id AS client FROM entries) ON client_id = client
    WHERE round = (SELECT max(round) FROM entries WHERE client_id = client AND round < ?)
"""
_ENTRY_TYPES = (int, str, int, float, float, str | None)
_MOST_WEIGHT = 2.0**64
"""A weight is at most 1 but for the server's learning rate; with this one, sums of float32 stay finite."""
_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Entry:
    """One client's part in one round.

    Parameters
    ----------
    round
        From 1.
    client_id
        Whose update it was.
    num_examples
        How many examples the client trained on; 0 where the update was purged.
    weight
        The weight that its update had in the aggregation, above 0; over a round the weights sum to 1, or with
        an asynchronous strategy to less where updates were late, times its server learning rate.
    norm
        Euclidean norm of the update; 0 where it was purged.
    sha256
        Of the file with the update, or under retention `sum` with the running sum; None where the update is
        not kept, or was purged.
    """

    round: int
    client_id: str
    num_examples: int
    weight: float
    norm: float
    sha256: str | None

    def row(self) -> tuple[int, str, int, float, float, str | None]:
        """Return the fields, in the order of the table's columns."""
        return self.round, self.client_id, self.num_examples, self.weight, self.norm, self.sha256


class Index:
    """The index in one SQLite file; every call opens and closes it, so nothing is held between calls."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def create(path: Path, meta: Mapping[str, str]) -> "Index":
        """Make an index without rounds; the file appears whole or not at all.

        Raises
        ------
        LetheError
            If the disk does not take it.
        """
        temporary = path.with_name(path.name + TEMPORARY)
        temporary.unlink(missing_ok=True)
        described = {"format": FORMAT, "version": VERSION, **meta}
        described["head"] = chain.start(described)
        with _translated(path), closing(sqlite3.connect(temporary)) as connection:
            connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
            with connection:
                connection.executemany("INSERT INTO meta VALUES (?, ?)", described.items())
                connection.execute(
                    "INSERT INTO meta VALUES ('digest', ?)", [_digest(sorted(described.items()))]
                )
        temporary.replace(path)
        sync_folder(path.parent)
        return Index(path)

    def meta(self) -> dict[str, str]:
        """Return what the log says about itself.

        Raises
        ------
        BadInput
            If it is of another version.
        RunCorrupt
            If the file is damaged.
        """
        meta = dict(self._select("SELECT key, value FROM meta", (str, str)))
        if meta.get("format") != FORMAT:
            raise RunCorrupt(
                f"{self.path}: damaged, or not the index of an update log; restore it from a copy"
            )
        if meta.get("version") != VERSION:
            raise BadInput(
                f"{self.path}: update log of version {meta.get('version')}, this Lethe reads {VERSION}"
            )
        if meta.pop("digest", None) != _digest(sorted(meta.items())):
            raise RunCorrupt(
                f"{self.path}: damaged, its description does not match its SHA-256; restore a copy"
            )
        return meta

    def rounds(self) -> dict[int, bool]:
        """Return the complete rounds in order, and whether each was a plain weighted average."""
        rows = self._select("SELECT round, averaging FROM rounds ORDER BY round", (int, int))
        return {number: bool(averaging) for number, averaging in rows}

    def entries(self, server_round: int | None = None, client_id: str | None = None) -> list[Entry]:
        """Return the entries of a round, of a client, of both or all, in order of round and client."""
        wanted = {"round": server_round, "client_id": client_id}
        given = {column: value for column, value in wanted.items() if value is not None}
        conditions = " AND ".join(["TRUE", *(f"{column} = ?" for column in given)])
        rows = self._select(f"SELECT {_ENTRY} FROM entries WHERE {conditions}", _ENTRY_TYPES, *given.values())
        return sorted((self._entry(row) for row in rows), key=_entry_order)

    def newest(self, before: int | None = None) -> dict[str, Entry]:
        """Return each client's last entry, of the rounds before `before` if that is given."""
        rows = self._select(_NEWEST, _ENTRY_TYPES, 2**62 if before is None else before)
        return {row[1]: self._entry(row) for row in rows}

    def _entry(self, row: Sequence[Any]) -> Entry:
        entry = Entry(*row)
        if 0 < entry.weight <= _MOST_WEIGHT and 0 <= entry.norm < math.inf:
            return entry
        raise RunCorrupt(
            f"{self.path}: damaged, client '{entry.client_id}' cannot have weight {entry.weight:g} and norm "
            f"{entry.norm:g} in round {entry.round}; restore it from a copy"
        )

    def clients(self) -> list[str]:
        """Return the ids of all clients that took part in a round, sorted."""
        rows = self._select("SELECT DISTINCT client_id FROM entries", (str,))
        return sorted((row[0] for row in rows), key=client_sort_key)

    def commit(self, server_round: int, averaging: bool, entries: Sequence[Entry]) -> None:
        """Write a round, all of it or nothing; LetheError if the disk is full or does not take it."""
        digest = _link(self.meta()["head"], server_round, averaging, entries)
        with self._connection() as connection, connection:
            connection.execute("INSERT INTO rounds VALUES (?, ?, ?)", (server_round, averaging, digest))
            connection.executemany(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", [entry.row() for entry in entries]
            )
            self._describe(connection, "head", digest)

    def rewind(self, last_round: int) -> None:
        """Forget the rounds after `last_round`, all of them or none."""
        newest = "SELECT digest FROM rounds WHERE round <= ? ORDER BY round DESC LIMIT 1"
        left = self._select(newest, (str,), last_round)
        with self._connection() as connection, connection:
            connection.execute("DELETE FROM entries WHERE round > ?", [last_round])
            connection.execute("DELETE FROM rounds WHERE round > ?", [last_round])
            self._describe(connection, "head", left[0][0] if left else chain.start(self.meta()))

    def describe(self, key: str, value: str) -> None:
        """Add to what the log says about itself, or replace a part of it."""
        with self._connection() as connection, connection:
            self._describe(connection, key, value)

    def _describe(self, connection: sqlite3.Connection, key: str, value: str) -> None:
        """Do the same within the connection's transaction."""
        digest = _digest(sorted((self.meta() | {key: value}).items()))
        connection.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)", [(key, value), ("digest", digest)]
        )

    def links(self) -> dict[int, str]:
        """Return the chain over the rounds as it follows from their entries now."""
        return self._links(self.entries())

    def head(self) -> str:
        """Return the chain's last link as it follows from the entries now: the SHA-256 of the whole log."""
        return [chain.start(self.meta()), *self.links().values()][-1]

    def _links(self, entries: Sequence[Entry]) -> dict[int, str]:
        before, by_round, found = chain.start(self.meta()), dict[int, list[Entry]](), dict[int, str]()
        for entry in entries:
            by_round.setdefault(entry.round, []).append(entry)
        for number, averaging in self.rounds().items():
            before = found[number] = _link(before, number, averaging, by_round.get(number, []))
        return found

    def bury(self, client_ids: Collection[str]) -> None:
        """Reduce the entries of clients to tombstones, all or none, and leave no copy of what they held.

        Raises
        ------
        LetheError
            If the disk is full or does not take it, or a reader does not let go.
        """
        after = [_buried(entry) if entry.client_id in client_ids else entry for entry in self.entries()]
        links = self._links(after)
        with self._erasing_connection() as connection, connection:
            connection.executemany(_BURY_ENTRY, [[client_id] for client_id in client_ids])
            connection.executemany(
                "UPDATE rounds SET digest = ? WHERE round = ?", [(digest, t) for t, digest in links.items()]
            )
            self._describe(connection, "head", [chain.start(self.meta()), *links.values()][-1])
        with self._erasing_connection() as connection:
            connection.execute("VACUUM")

    def damage(self) -> str | None:
        """Say what is wrong with the index; None if nothing is.

        Raises
        ------
        RunCorrupt
            If it cannot even be read.
        """
        meta = self.meta()
        found = self._select("PRAGMA integrity_check(1)", (str,))[0][0]
        if found != "ok":
            return f"damaged ({found})"
        rounds = self._select("SELECT round, averaging, digest FROM rounds ORDER BY round", (int, int, str))
        before = chain.start(meta)
        for number, averaging, digest in rounds:
            if _link(before, number, bool(averaging), self.entries(number)) != digest:
                return f"round {number} does not match its link of the hash chain"
            before = digest
        if before != meta["head"]:
            return "rounds were removed from its end, or added to it"
        listed = {row[0] for row in self._select("SELECT DISTINCT round FROM entries", (int,))}
        lost = sorted(listed - {row[0] for row in rounds})
        return f"round {lost[0]} has entries but no row" if lost else None

    def _select(
        self, query: str, types: Sequence[type | UnionType], *values: int | str
    ) -> list[tuple[Any, ...]]:
        """Return the rows of a query; a damaged file does not hold values to their column's type."""
        with self._connection() as connection:
            rows = connection.execute(query, values).fetchall()
        if all(isinstance(v, t) for row in rows for v, t in zip(row, types, strict=True)):
            return rows
        raise RunCorrupt(f"{self.path}: damaged, it holds a value of the wrong type; restore it from a copy")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with _translated(self.path):
            address = self.path.absolute().as_uri() + "?mode=rw"
            with closing(sqlite3.connect(address, uri=True, timeout=_WAIT_SECONDS)) as connection:
                connection.execute("PRAGMA synchronous = EXTRA")
                yield connection

    @contextmanager
    def _erasing_connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that overwrites what it deletes, in the file and in its journal."""
        with self._connection() as connection:
            for setting in ("secure_delete = ON", "journal_mode = PERSIST", "temp_store = MEMORY"):
                connection.execute(f"PRAGMA {setting}")
            yield connection
        erase(self.path.with_name(self.path.name + "-journal"))


def _link(before: str, server_round: int, averaging: bool, entries: Iterable[Entry]) -> str:
    rows = (entry.row() for entry in sorted(entries, key=_entry_order))
    return chain.link(before, server_round, averaging, rows)


def _buried(entry: Entry) -> Entry:
    return replace(entry, num_examples=0, norm=0.0, sha256=None)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _entry_order(entry: Entry) -> tuple[int, tuple[int, int, str]]:
    return entry.round, client_sort_key(entry.client_id)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Raise SQLite's errors as the project's, with the name of the file."""
    try:
        yield
    except UnicodeDecodeError as error:  # In a text, or in SQLite's own message about damage
        raise RunCorrupt(f"{path}: damaged, not text where text must be; restore it from a copy") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF  # Without the extended part
        if code == sqlite3.SQLITE_FULL:
            raise LetheError(f"{path}: the disk is full; free some space and resume") from error
        if code == sqlite3.SQLITE_CANTOPEN:
            raise RunCorrupt(f"{path}: missing, or cannot be opened") from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            raise LetheError(f"{path}: {error}") from error
        raise RunCorrupt(f"{path}: damaged ({error}); restore it from a copy") from error

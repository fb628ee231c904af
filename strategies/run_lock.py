"""Who is working on a run: any number may forget and measure, one alone trains it or removes it.

The lock is SQLite's on an empty file, the same on every system, and it ends with its holder: a killed process
leaves nothing that would have to be cleared away.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from strategies.errors import LetheError

LOCK = "run.lock"
"""Name of the file in a run's folder."""


@contextmanager
def in_use(folder: Path, *, alone: bool = False) -> Iterator[None]:
    """Hold a run's folder while it is worked on.

    Parameters
    ----------
    folder
        Of the run.
    alone
        Whether nobody else may work on it meanwhile.

    Raises
    ------
    LetheError
        If others work on the run in a way that does not allow it, or the folder cannot be written.
    """
    try:
        connection = sqlite3.connect(folder / LOCK, timeout=0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise LetheError(f"{folder}: cannot be locked ({error})") from error
    with closing(connection):
        try:
            connection.execute("BEGIN EXCLUSIVE" if alone else "BEGIN")
            connection.execute("SELECT * FROM sqlite_master").fetchall()  # A reader's lock begins with it
        except sqlite3.Error as error:
            busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
            reason = "another process is working on this run" if busy else f"cannot be locked ({error})"
            raise LetheError(f"{folder}: {reason}") from error
        yield

"""A lock that ends with its holder: SQLite's on an empty file, the same on every system.

A killed process leaves nothing that would have to be cleared away.
"""

import sqlite3
from pathlib import Path

from strategies.core.errors import LetheError


def locked(folder: Path, name: str, busy: str, *, alone: bool = True) -> sqlite3.Connection:
    """Return a lock on a file in a folder, held until the connection is closed.

    Parameters
    ----------
    busy
        What is said where others hold it in a way that does not allow this.
    alone
        Whether nobody else may hold it meanwhile.

    Raises
    ------
    LetheError
        If others hold it, or the folder cannot be written.
    """
    try:
        connection = sqlite3.connect(folder / name, timeout=0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise LetheError(f"{folder}: cannot be locked ({error})") from error
    try:
        connection.execute("BEGIN EXCLUSIVE" if alone else "BEGIN")
        connection.execute("SELECT * FROM sqlite_master").fetchall()  # A reader's lock begins with it
    except sqlite3.Error as error:
        connection.close()
        is_busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
        raise LetheError(f"{folder}: {busy if is_busy else f'cannot be locked ({error})'}") from error
    return connection

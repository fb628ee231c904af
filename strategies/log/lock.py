"""A lock that ends with its holder, so that two processes never write one log."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from strategies.errors import LetheError

LOCK = "writer.lock"


class WriterLock:
    """Hold a log for writing, with SQLite's file lock: the same everywhere, and lost by a killed holder.

    Parameters
    ----------
    folder
        The log's folder.

    Raises
    ------
    LetheError
        If another holds it, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._connection = sqlite3.connect(
                folder / LOCK, timeout=0, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise LetheError(f"{folder}: cannot be locked ({error})") from error
        try:
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            self.release()
            busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
            reason = "another process is writing this log" if busy else f"cannot be locked ({error})"
            raise LetheError(f"{folder}: {reason}") from error

    def release(self) -> None:
        """Let others write; a second release does nothing."""
        self._connection.close()


@contextmanager
def kept_if_opened(folder: Path) -> Iterator[WriterLock]:
    """Lock a log, and release it if what is done inside fails."""
    lock = WriterLock(folder)
    try:
        yield lock
    except BaseException:
        lock.release()
        raise

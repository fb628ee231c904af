"""A lock that ends with its holder, so that two processes never write one log."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from strategies.runs.file_lock import locked

LOCK = "writer.lock"


class WriterLock:
    """Hold a log for writing (see `strategies.runs.file_lock`).

    Raises
    ------
    LetheError
        If another holds it, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._connection = locked(folder, LOCK, "another process is writing this log")

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

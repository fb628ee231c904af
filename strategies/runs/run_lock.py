"""The lock on a run: many processes may forget and measure, only one may train or remove it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from strategies.runs.file_lock import locked

LOCK = "run.lock"
"""Name of the file in a run's folder."""


@contextmanager
def in_use(folder: Path, *, alone: bool = False) -> Iterator[None]:
    """Hold a run's folder while it is worked on.

    Parameters
    ----------
    alone
        Whether nobody else may work on it meanwhile.

    Raises
    ------
    LetheError
        If others work on the run in a way that does not allow it, or the folder cannot be written.
    """
    with closing(locked(folder, LOCK, "another process is working on this run", alone=alone)):
        yield

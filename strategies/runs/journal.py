"""The progress of one piece of work on a run, as events in a file of its own under ``events/``.

A line is a JSON object with `time` (seconds since 1970) and `event`:

- ``begin``: `kind` (train, forget, audit, compare) and `name` of the work; always the first
- ``phase``: a part with a `title` and a `total` of steps begins
- ``step``: one is done, with a `message` and `values`
- ``answered``: within a step `done` of `total` clients have answered an exchange, its `scope`
- ``note``: a remark, its `text`
- ``end``: the `outcome` (finished, interrupted, failed), and the `reason`

What each round measured is in ``metrics.jsonl``. The writer holds a lock on its file, so that others can
see whether it still works; a killed one leaves no ``end``, and no lock. Lines are flushed, not forced to the
disk: a power loss may take the last ones, and nothing but a picture is lost.
"""

import fcntl
import time
from pathlib import Path
from typing import Any, final

from strategies.core.errors import LetheError
from strategies.runs import files
from strategies.runs.names import EVENTS

ENDING = ".jsonl"


@final
class Journal:
    """The events of a piece of work, while it lasts; use `begin`.

    Every method raises `LetheError` if the disk does not take what it writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("xb", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except OSError:
            self._file.close()
            raise

    @staticmethod
    def begin(run: Path, kind: str, name: str) -> "Journal":
        """Begin the events of a piece of work on the run in this folder."""
        folder = run / EVENTS
        try:
            folder.mkdir(exist_ok=True)
            journal = _first_free(folder)
        except OSError as error:
            raise files.not_written(folder, error) from error
        try:
            journal.add("begin", kind=kind, name=name)
        except LetheError:
            journal.discard()
            raise
        return journal

    def add(self, event: str, **fields: Any) -> None:
        """Add an event; numbers that are not finite become null."""
        line = files.to_json({"time": round(time.time(), 3), "event": event, **fields})
        try:
            files.write_all(self._file, line.encode(errors="replace") + b"\n")
        except OSError as error:
            raise files.not_written(self.path, error) from error

    def close(self) -> None:
        """Let go of the file, and of the lock with it."""
        self._file.close()

    def discard(self) -> None:
        """Delete the events, as of work that was refused; and their folder if there are no others."""
        self.close()
        self.path.unlink(missing_ok=True)
        if not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()


def journals(run: Path) -> list[Path]:
    """Return the files with the events of all work on a run, oldest first."""
    return sorted((run / EVENTS).glob(f"[0-9]*{ENDING}"), key=lambda path: (len(path.stem), path.stem))


def is_written(path: Path) -> bool:
    """Whether the process that writes a journal still works; it is not disturbed."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _first_free(folder: Path) -> Journal:
    number = 1 + max((int(path.stem) for path in folder.glob(f"*{ENDING}") if path.stem.isdigit()), default=0)
    while True:
        try:
            return Journal(folder / f"{number:04d}{ENDING}")
        except FileExistsError:
            number += 1

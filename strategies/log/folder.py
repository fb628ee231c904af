"""The folder of an update log: empty before, whole after, and what lies between."""

from pathlib import Path

from strategies.core.errors import BadInput, RunCorrupt
from strategies.log.lock import LOCK
from strategies.runs.files import TEMPORARY, not_written

INDEX = "index.sqlite"
"""Name of the index's file."""


def make_folder(path: Path) -> None:
    """Make the folder of a new log; one that a killed writer began is taken.

    Raises
    ------
    BadInput
        If it holds anything else.
    LetheError
        If the disk does not take it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(path, error) from error
    half_written = {name + end for name in (LOCK, INDEX + TEMPORARY) for end in ("", "-journal")}
    if found := sorted({entry.name for entry in path.iterdir()} - half_written):
        raise BadInput(f"{path}: holds '{found[0]}' already; a new update log needs a folder of its own")


def check_folder(path: Path) -> None:
    """Make sure that a folder holds a log.

    Raises
    ------
    BadInput
        If there is none.
    RunCorrupt
        If the log has no index.
    """
    if not path.is_dir() or not any(path.iterdir()):
        raise BadInput(f"{path}: no update log here; train with log.enabled = true to have one")
    if not (path / INDEX).exists():
        raise RunCorrupt(
            f"{path / INDEX}: missing; the log is half written or lost its index, restore a copy"
        )

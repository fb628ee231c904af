"""Where run folders lie and how they are named: one folder, the home, with one folder in it per run."""

import re
import time
from pathlib import Path

from strategies.core.errors import BadInput

MARKER = "run.json"
"""Name of the file that marks a whole run folder."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,127}")
_NAME_RULE = "letters, digits and . _ + = - (first a letter or digit, at most 128)"


def list_runs(home: Path | str) -> list[str]:
    """Return the names of the runs in a home, sorted; empty where there is no such folder."""
    return [name for name in folders_in(expand(home)) if (expand(home) / name / MARKER).exists()]


def folders_in(path: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; empty where there is no such folder."""
    return sorted(p.name for p in path.iterdir() if p.is_dir()) if path.is_dir() else []


def expand(path: Path | str) -> Path:
    """Return a path with a leading ``~`` replaced by the user's own folder.

    Raises
    ------
    BadInput
        If it names a user who is unknown.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise BadInput(f"{path}: there is no such user, so no folder of theirs") from None


def place(parent: Path, name: str) -> Path:
    """Return parent/name after checking that it lies in the parent, links included.

    Raises
    ------
    BadInput
        If the name is no plain folder name, or a link that leads out.
    """
    if not _NAME.fullmatch(name):
        raise BadInput(f"name '{name}': expected a plain folder name of {_NAME_RULE}")
    path = parent / name
    if path.resolve().parent != parent.resolve():
        raise BadInput(f"name '{name}': {path} is a link that leads to {path.resolve()}, out of {parent}")
    return path


def make(path: Path) -> Path:
    """Make the folder of a run; an empty one may exist.

    Raises
    ------
    BadInput
        If it holds something, or is a file.
    """
    _make_parents(path)
    if any(path.iterdir()):
        raise BadInput(
            f"run '{path.name}': {path} exists already; choose another run.name, or resume that run"
        )
    return path


def make_free(home: Path, label: str) -> Path:
    """Make a new folder named after the local time and a label; a number is added if it exists.

    Raises
    ------
    BadInput
        If the home is a file.
    """
    stem = time.strftime("%Y%m%d-%H%M%S-") + (re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-.") or "run")
    return make_numbered(home / stem)


def make_numbered(wanted: Path) -> Path:
    """Make a new folder; a number is added to its name if it exists.

    Raises
    ------
    BadInput
        If the home is a file.
    """
    _make_parents(wanted.parent)
    path, number = wanted, 1
    while True:
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1
            path = wanted.with_name(f"{wanted.name}-{number}")


def _make_parents(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise BadInput(
            f"{path}: this, or a folder above it, is a file; choose another run.name or run.home"
        ) from None


def find(run: str, home: Path | None) -> Path:
    """Return the folder of a run given by its name, looked for in the home first, or by its path.

    A pruned run, which lies in another, is named as in ``study/pruned/omp-0.95``.

    Raises
    ------
    BadInput
        If there is no such run, or its name is a link that leads out of the home.
    """
    inside = run.rstrip("/").split("/")
    if home is not None and all(map(_NAME.fullmatch, inside)) and (home / run).exists():
        found = home
        for name in inside:  # the last two of study/pruned/omp-0.95 lie in the run study
            found = place(found, name)
        return found
    path = expand(run)
    if run and path.exists():
        return path
    known = list_runs(home) if home is not None else []
    hint = f"; the last runs in {home} are {', '.join(known[-10:])}" if known else ""
    raise BadInput(f"run '{run}': no such run or folder{hint}")

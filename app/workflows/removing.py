"""Removes a run for good: its folder, and the keys of its update logs, which lie elsewhere."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from app.config.run_config import RunConfig
from app.forgettings.folder import outermost, runs_in
from app.forgettings.lineage import descendants
from app.forgettings.names import CERTIFICATE
from app.report.wording import count, listed
from strategies.core.errors import BadInput, LetheError
from strategies.log.keys import LogKeys
from strategies.log.update_log import UpdateLog
from strategies.runs.files import not_written, read_json
from strategies.runs.folder import CONFIG, FORMAT, PRUNED, RunFolder
from strategies.runs.home import MARKER, expand, find, folders_in
from strategies.runs.run_lock import in_use

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class RunContents:
    """What goes with a run when it is removed, and what remains.

    `inside` has a phrase for each kind of thing in it: forgettings, pruned runs, comparisons; `keys` are the
    folders with the keys of its encrypted update logs, elsewhere; `remains` has a sentence for each thing
    that is left behind and names the run.
    """

    path: Path
    num_bytes: int
    inside: tuple[str, ...]
    keys: tuple[Path, ...]
    remains: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "run": self.path.name,
            "path": str(self.path),
            "bytes": self.num_bytes,
            "inside": list(self.inside),
            "keys": [str(folder) for folder in self.keys],
            "remains": list(self.remains),
        }


def find_removable(run: str, home: Path) -> RunFolder:
    """Return the run with a name under the home, or with a path, whatever state it is in.

    A folder without the mark of a run is accepted under the home only, if it is a run that was just begun.

    Raises
    ------
    BadInput
        If it is no run.
    """
    path = find(run, expand(home)).absolute()
    if (path / MARKER).exists():
        marked = read_json(path / MARKER).get("format") == FORMAT
    else:
        begun = (path / CONFIG).exists() or not any(path.iterdir())
        marked = begun and path.parent == expand(home).absolute()
    if not marked or path.is_symlink():
        raise BadInput(f"run '{run}': {path} is not the folder of a run; it is left alone")
    return RunFolder(path)


def run_contents(folder: RunFolder) -> RunContents:
    """Return the contents of a run, and what remains after its removal."""
    files = [path for path in folder.path.rglob("*") if path.is_file()]
    return RunContents(
        folder.path,
        sum(path.lstat().st_size for path in files),
        tuple(_inside(folder)),
        tuple(keys.folder for keys in _keys_of(folder)),
        tuple(_remains(folder)),
    )


def remove(folder: RunFolder) -> RunContents:
    """Delete a run's folder and destroy the keys of its update logs; return what there was.

    Only the keys are overwritten; the files are deleted: `lethe forget --purge` erases.

    Raises
    ------
    LetheError
        If a process works on the run, or the disk refuses. The same command continues from there.
    """
    with ExitStack() as locks:
        for path in {outermost(folder).path, *(run.path for run in runs_in(folder))}:
            locks.enter_context(in_use(path, alone=True))
        return _removed(folder)


def on_run(work: Callable[Concatenate[RunFolder, P], R]) -> Callable[Concatenate[RunFolder, P], R]:
    """Have a workflow lock the run that it works on, so that it is not removed meanwhile."""

    @wraps(work)
    def locked(folder: RunFolder, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with in_use(outermost(folder).path):
            return work(folder, *args, **kwargs)

    return locked


@contextmanager
def removed_if_refused(folder: RunFolder) -> Iterator[None]:
    """Remove a new run if its training refuses its input; a run that was begun and fails stays, to resume."""
    try:
        yield
    except LetheError as error:
        begun = folder.has_initial and not isinstance(error, BadInput)
        if not begun and folder.read_checkpoint() is None:
            _removed(folder)
        raise


def _removed(folder: RunFolder) -> RunContents:
    contents = run_contents(folder)
    for keys in _keys_of(folder):
        keys.destroy_all()
    try:
        # The config goes last: with it a folder that is half removed is still known as a run
        (folder.path / MARKER).unlink(missing_ok=True)
        for entry in folder.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != CONFIG:
                entry.unlink()
        shutil.rmtree(folder.path)
    except OSError as error:
        raise not_written(folder.path, error) from error
    return contents


def _inside(folder: RunFolder) -> Iterator[str]:
    if names := folder.forget_requests():
        certified = [name for name in names if (folder.path / "forget" / name / CERTIFICATE).exists()]
        proof = f", {count(len(certified), 'certificate')} among them" if certified else ""
        yield f"{count(len(names), 'forgetting')}{proof}: {listed(names)}"
    for place, what in ((PRUNED, "pruned run"), ("seeds", "run with another seed")):
        if runs := folders_in(folder.path / place):
            yield f"{what}: {listed(runs)}"
    if documents := sorted(path.stem for path in (folder.path / "compare").glob("*.json")):
        yield f"{count(len(documents), 'comparison')}: {listed(documents)}"


def _remains(folder: RunFolder) -> Iterator[str]:
    outer = outermost(folder)
    if outer.path.absolute() != folder.path.absolute():
        yield f"Run '{outer.name}', which this one lies in, keeps what was made of both."
    for each in descendants(folder) if outer is folder else ():
        yield f"Run '{each.folder.name}', which comes from it, stays with what it has of its model."
    if any(folder.path.rglob(CERTIFICATE)):
        yield "Copies of its certificates elsewhere can no longer be compared with its files."
    try:
        ledger = RunConfig.from_toml(folder.path / CONFIG).privacy.ledger
    except BadInput:
        return  # The config is damaged or of another version: what it names is not known
    if ledger:
        yield f"The ledger {ledger} keeps what privacy the run has spent."


def _keys_of(folder: RunFolder) -> Iterator[LogKeys]:
    """Yield the keys of the run's update logs that are on this machine."""
    for path in {folder.log_path, *(run.log_path for run in runs_in(folder))}:
        if not UpdateLog.exists(path):
            continue
        try:
            keys = UpdateLog.open(path).keys
        except LetheError as error:
            raise LetheError(
                f"{error}; where its keys lie is not known. Delete {folder.path} by hand, and its keys if "
                "it has some"
            ) from None
        if keys is not None and keys.folder.is_dir():
            yield keys

"""Where a project comes from: a module, named by a reference such as ``hospital.project:project``, or Python.

A process works on one project at a time, the bound one. A reference is read by whoever starts a run on their
own machine; a client never imports what a message names, only what its bundle or its own node's config says.
"""

import hashlib
import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from app.config.run_config import RunConfig
from app.project.manifest import Manifest
from app.project.project import Project
from strategies.core.errors import BadInput, LetheError, kind_of

T = TypeVar("T")
IN_PYTHON = "python:project"
"""Reference of a project that was handed over in Python and that no module holds."""
_TESTS = ("test_*.py", "*_test.py")
"""Files that Flower leaves out of a bundle."""
_PACKAGES = ("app", "strategies", "unlearning")
"""Packages beside this one's, whose frames are no user's."""


@dataclass(frozen=True, eq=False)
class LoadedProject:
    """A project and where it came from.

    Parameters
    ----------
    reference
        ``module:object``, or `IN_PYTHON`.
    folder
        Absolute path of the folder that ``sys.path`` needs for it; empty for `IN_PYTHON`.
    sha256
        Of the source files of its package, in hexadecimal; the same on the server and on every node.
    """

    project: Project
    reference: str
    folder: str = ""
    sha256: str = ""

    @property
    def in_python(self) -> bool:
        """Whether only this process has it."""
        return self.reference == IN_PYTHON


_bound: list[LoadedProject] = []


def bind(loaded: LoadedProject) -> None:
    """Make a project that of this process."""
    _bound[:] = [loaded]


def bound() -> LoadedProject | None:
    """Return the project of this process; None if there is none."""
    return _bound[0] if _bound else None


@contextmanager
def using(loaded: LoadedProject | None) -> Iterator[None]:
    """Make a project that of this process, for a while; None: no project."""
    before = _bound[:]
    _bound[:] = [] if loaded is None else [loaded]
    try:
        yield
    finally:
        _bound[:] = before


def project_of(config: RunConfig, folder: str = "") -> LoadedProject | None:
    """Return the project of a run, for the process that a user started: the bound one, or by reference.

    `folder` is where it was found before; it is used if nothing else leads to the module.

    Raises
    ------
    BadInput
        If there is no such project, or its import fails.
    """
    found, reference = bound(), config.run.project
    if found is not None and (reference in {"", found.reference} or holds(reference, found.project)):
        return found
    return loaded_from(reference, folder_now(reference, folder)) if reference else None


def folder_now(reference: str, folder: str) -> str:
    """Return where a project lies: in the folder where it was found before, or, moved, in the current one."""
    here = Path.cwd()
    if folder and not Path(folder).is_dir():
        manifest = Manifest.in_folder(here)
        return str(here) if manifest is not None and manifest.reference == reference else folder
    return folder


def loaded_from(reference: str, folder: str = "") -> LoadedProject:
    """Import a project.

    Raises
    ------
    BadInput
        If the reference is malformed, the module cannot be imported (a note has the user's own traceback),
        or what it names is no project.
    """
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise BadInput(
            f"run.project: given {reference!r}, allowed module:object, as in hospital.project:project"
        )
    if reference == IN_PYTHON:
        raise BadInput(
            "run.project: this run's project was handed over in Python and lies in no module; open the run "
            "there: lethe.open_run(run, project)"
        )
    module = _imported(module_name, folder)
    found = getattr(module, attribute, None)
    if not isinstance(found, Project):
        kind = "nothing" if found is None else f"a {type(found).__name__}"
        raise BadInput(f"run.project: {reference!r} names {kind}, wanted a lethe.Project")
    return _located(found, reference)


def named(project: Project) -> LoadedProject:
    """Return a project that was handed over, with the reference of the module that holds it, if one does.

    Of several, the one in which its functions are written.

    Raises
    ------
    BadInput
        If it is no project.
    """
    if not isinstance(project, Project):
        raise BadInput(f"project: given a {type(project).__name__}, wanted a lethe.Project")
    held = [
        (name, f"{name}:{attribute}")
        for name, module in list(sys.modules.items())
        if module is not sys.modules["__main__"] and isinstance(getattr(module, "__file__", None), str)
        for attribute, value in list(vars(module).items())
        if value is project
    ]
    if not held:
        return LoadedProject(project, IN_PYTHON)
    written = {getattr(part, "__module__", "") for part in (project.model, project.data)}
    return _located(project, min(held, key=lambda found: found[0] not in written)[1])


def holds(reference: str, project: Project) -> bool:
    """Say whether a reference to an imported module names a project."""
    module, _, attribute = reference.partition(":")
    return vars(sys.modules[module]).get(attribute) is project if module in sys.modules else False


def _located(project: Project, reference: str) -> LoadedProject:
    name = reference.partition(":")[0]
    file = Path(str(sys.modules[name].__file__)).resolve()
    depth = name.count(".") + (file.name == "__init__.py")
    folder = file.parents[depth]
    top = folder / name.partition(".")[0]
    return LoadedProject(project, reference, str(folder), _digest(top if top.is_dir() else file))


def _digest(place: Path) -> str:
    """Return the hash of a package's source files, or of the one file that a module is."""
    files = [place]
    if place.is_dir():
        tests = {file for pattern in _TESTS for file in place.rglob(pattern)}
        files = sorted(file for file in place.rglob("*.py") if file not in tests)
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(place.parent).as_posix()}\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _imported(name: str, folder: str) -> object:
    added = [folder] if folder and folder not in sys.path else []
    sys.path.extend(added)
    try:
        return importlib.import_module(name)
    except BadInput:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever the user's code raises)
        for place in added:
            sys.path.remove(place)
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise BadInput(f"run.project: no module {name!r} here; start in the project's folder") from None
        raise explained(f"importing {name!r} failed", error) from None


class OwnCodeFailed(BadInput):
    """The user's code raised something."""

    def __init__(self, what: str, error: BaseException, place: str) -> None:
        self._unnamed = f"run.project: {what}: {kind_of(error)}{place}"
        said = " ".join(str(error).split())
        super().__init__(f"run.project: {what}: {type(error).__name__}{f': {said}' if said else ''}{place}")

    @property
    def unnamed(self) -> str:
        """The message without the user's text, which may quote the data."""
        return self._unnamed


def explained(what: str, error: BaseException) -> OwnCodeFailed:
    """Return the line on a failure in the user's code; its note is the user's own part of the traceback."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    lines, place = traceback.format_list(own), ""
    if isinstance(error, SyntaxError):  # Its place is no frame, and part of its text
        lines += traceback.format_exception_only(error)[:-1]
    elif own:
        place = f" ({Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name})"
    refusal = OwnCodeFailed(what, error, place)
    if lines:
        refusal.add_note("".join(lines).rstrip())
    return refusal


def called(what: str, function: Callable[[], T]) -> T:
    """Call a function of the user's; what it raises becomes one line, with the user's own traceback."""
    try:
        return function()
    except LetheError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever the user's code raises)
        raise explained(what, error) from None


def _is_ours(file: str) -> bool:
    path, top = Path(file).resolve(), Path(__file__).resolve().parents[2]
    ours = top / "lethe.py" == path or any(top / name in path.parents for name in _PACKAGES)
    return file.startswith("<") or ours or "importlib" in path.parts

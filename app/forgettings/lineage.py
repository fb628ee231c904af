"""The family of a run: where it comes from, which runs come from it, and which of those hold what it forgets.

A run knows its parent by an id and the hash of the model it took. Its children are found among the runs that
lie beside it, by that id; a run that is kept elsewhere is not found.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.forgettings.folder import forgetting_paths, outermost, read_forgetting, sha256_of
from app.forgettings.origin import Origin, read_origin
from strategies.core.errors import BadInput, LetheError, RunCorrupt
from strategies.runs.files import read_json
from strategies.runs.folder import FORMAT, RunFolder
from strategies.runs.home import MARKER, list_runs
from unlearning.request import ForgetRequest

_ID_DIGITS = 12
_SHOWN = 5


@dataclass(frozen=True)
class Relative:
    """A run with its unique id and where it comes from; None: from no other run."""

    folder: RunFolder
    run_id: str
    origin: Origin | None


def relatives(homes: Iterable[Path]) -> list[Relative]:
    """Return the runs in some homes, in the order of their names; one that cannot be read is left out."""
    found: dict[str, Relative] = {}
    for home in dict.fromkeys(home.absolute() for home in homes):
        for name in list_runs(home):
            folder = RunFolder(home / name)
            try:
                found.setdefault(folder.run_id, Relative(folder, folder.run_id, read_origin(folder)))
            except (LetheError, KeyError):
                continue  # What is wrong with it, its own commands say
    return list(found.values())


def children(folder: RunFolder) -> dict[str, Origin]:
    """Return the runs beside a run that come from it itself, by name, each with its origin."""
    everybody = relatives([folder.path.absolute().parent])
    origins = {each.folder.name: each.origin for each in everybody if each.origin is not None}
    return {name: origin for name, origin in origins.items() if origin.run_id == folder.run_id}


def descendants(folder: RunFolder) -> list[Relative]:
    """Return the runs beside a run that come from it, children before their children."""
    top = outermost(folder)
    if not (top.path / MARKER).exists():  # A run that was just begun
        return []
    everybody, found = relatives([top.path.absolute().parent]), list[Relative]()
    parents = {top.run_id}
    while children := [each for each in everybody if _parent_id(each) in parents and each not in found]:
        found += children
        parents = {each.run_id for each in children}
    return found


def holders(folder: RunFolder, request: ForgetRequest) -> list[Relative]:
    """Return the descendants of a run whose model still holds what a request names.

    Not among them: those that began without it, their descendants, and those that have forgotten it.
    """
    clean, found = set[str](), list[Relative]()
    for each in descendants(folder):
        origin = each.origin
        if origin is None or origin.run_id in clean or not origin.holds(request):
            clean.add(each.run_id)
        elif not _has_forgotten(each.folder, request):
            found.append(each)
    return found


def warnings_of(folder: RunFolder, request: ForgetRequest) -> list[str]:
    """Return a warning for each run that comes from this one and still holds what a request names."""
    return [_warning(each, request) for each in holders(folder, request)]


def stated(folder: RunFolder, request: ForgetRequest) -> list[dict[str, Any]]:
    """Return those runs as a certificate states them."""
    return [
        {"run": each.folder.name, "id": each.run_id, "how": "" if each.origin is None else each.origin.how}
        for each in holders(folder, request)
    ]


def parent_of(child: Relative, others: Iterable[Relative]) -> tuple[RunFolder | None, str]:
    """Return the run that a child comes from, and what is to be said of it; None if it is not found."""
    origin = child.origin
    if origin is None:
        return None, ""
    found = next((each.folder for each in others if each.run_id == origin.run_id), None)
    if found is None and _id_at(origin.path) == origin.run_id:
        found = RunFolder(origin.path)
    if found is None:
        said = f"'{origin.run}' (id {origin.run_id[:_ID_DIGITS]}…) was removed, or moved from {origin.path}"
        return None, said
    moved = found.path.absolute() != origin.path
    return found, f"moved from {origin.path} to {found.path}" if moved else ""


def check_origin(folder: RunFolder) -> tuple[bool | None, str]:
    """Say whether the model that a run comes from is still the one of the record; None: it is not there."""
    origin = read_origin(folder)
    if origin is None:
        return None, "it comes from no other run"
    own = Relative(folder, folder.run_id, origin)
    parent, said = parent_of(own, relatives([folder.path.absolute().parent]))
    if parent is None:
        return None, said
    model = parent.path / origin.model_path.relative_to(origin.path)
    try:
        actual = sha256_of(model)
    except RunCorrupt as error:
        return False, str(error)
    if actual != origin.sha256:
        return False, f"{model} is another file than the one that this run {words_of(origin)}"
    return True, described(origin)


def described(origin: Origin) -> str:
    """Return where a run comes from, in words."""
    return f"{words_of(origin)} {origin.place}, {origin.rounds} rounds (id {origin.run_id[:_ID_DIGITS]}…)"


def words_of(origin: Origin) -> str:
    """Return what a run did with its parent, in words."""
    return "went on from" if origin.how == "continued" else "began with the weights of"


def _warning(each: Relative, request: ForgetRequest) -> str:
    origin = each.origin
    what = _subject(request)
    if origin is not None and origin.how == "continued":
        advice = f"forget it there as well (lethe forget {each.folder.name})"
    else:
        advice = "train it anew with the weights of a model that forgot it (model.weights = RUN/forget/NAME)"
    done = "comes from this one" if origin is None else f"{words_of(origin)} {origin.place}"
    return f"run {each.folder.name} {done} and still holds {what}: {advice}"


def _subject(request: ForgetRequest) -> str:
    if request.clients:
        return f"client {_listed(request.clients)}"
    if request.classes:
        return f"class {_listed(map(str, request.class_names or request.classes))}"
    return f"the named examples of client {_listed(request.samples)}"


def _listed(names: Iterable[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    head = list(names)
    more = f" and {len(head) - _SHOWN} more" if len(head) > _SHOWN else ""
    return ", ".join(head[:_SHOWN]) + more


def _has_forgotten(folder: RunFolder, request: ForgetRequest) -> bool:
    return any(_forgets(folder, path.name, request) for path in forgetting_paths(folder))


def _forgets(folder: RunFolder, name: str, request: ForgetRequest) -> bool:
    try:
        made = read_forgetting(folder, name)
    except (BadInput, RunCorrupt):
        return False  # Half made, or damaged: nothing that counts
    without = Origin("continued", "", "", folder.path, name, "", 0, (*made.forgotten, made.request))
    return not without.holds(request)


def _parent_id(each: Relative) -> str:
    return "" if each.origin is None else each.origin.run_id


def _id_at(path: Path) -> str:
    """Return the id of the run in a folder; empty if there is none."""
    try:
        marker = read_json(path / MARKER)
    except RunCorrupt:
        return ""
    return str(marker.get("id", "")) if marker.get("format") == FORMAT else ""

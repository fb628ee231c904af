"""What a run records of its data: the files that they were read from, and the names of its classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.config.run_config import RunConfig
from app.data.columns import Columns
from app.data.forms import Forms, forms_from
from app.data.identity import identity, own_place, placed
from app.data.labels import class_of, some
from app.forgettings.folder import record_path
from app.models.weights import weights_file, weights_place
from strategies.core.errors import BadInput, RunCorrupt
from strategies.runs.files import read_json, write_json
from strategies.runs.folder import SUMMARY, RunFolder

DATA = "data.json"
"""Name of the file in the run's folder."""
COLUMNS = "columns.json"
"""Name of the file with the schema of a table's columns, for ``data.columns``."""
INPUTS = "inputs.json"
"""Name of the file with the form of a run's inputs, and the scale that a simulation measured."""
_NAMES = ("data.name", "data.public")
PLACES = (
    *("data.root", "run.home", "run.certificate-key", "run.config-file", "log.keys"),
    *("privacy.encryption-key", "data.columns", "data.folder-of-clients"),
)
"""Keys that name a place on the disk of whoever begins a run."""


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """Return a config that means the same from any folder."""
    flat = config.to_flat()
    changed = {key: placed(str(flat[key])) for key in _NAMES}
    changed["model.weights"] = weights_place(config.model.weights, config.run.home_path)
    changed |= {
        key: str(Path(path).absolute())
        for key in PLACES
        if (path := str(flat[key])) and not path.startswith("~") and not Path(path).is_absolute()
    }
    return RunConfig.from_flat(flat | changed) if any(flat[k] != v for k, v in changed.items()) else config


def write_record(
    folder: RunFolder, config: RunConfig, class_names: Sequence[str], project: Mapping[str, str]
) -> None:
    """Record the data of a new run, and where its project lies (empty if it has none)."""
    document = {"class-names": list(class_names), "sources": _sources(config)}
    write_json(folder.path / DATA, document | ({"project": dict(project)} if project else {}))


def project_folder_of(folder: RunFolder) -> str:
    """Return the folder in which a run's project was found; empty if it has none."""
    return str(_read(folder).get("project", {}).get("folder", ""))


def class_names_of(folder: RunFolder) -> tuple[str, ...]:
    """Return the names of a run's classes; empty if it did not record them.

    Raises
    ------
    RunCorrupt
        If the file is damaged.
    """
    return tuple(_read(folder).get("class-names", ()))


def classes_in(folder: RunFolder, labels: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the classes with some labels (names or numbers), and their names if these are no numbers.

    Raises
    ------
    BadInput
        If a label is no class of the run.
    """
    names = class_names_of(folder)
    if not names and (folder.path / SUMMARY).exists():
        names = tuple((folder.read_summary().get("data") or {}).get("class-names", ()))
    if not names:
        if wrong := [label for label in labels if not label.isdecimal()]:
            raise BadInput(
                f"class {wrong[0]}: wanted a number from 0, as the run has no names of its classes"
            )
        return tuple(map(int, labels)), ()
    classes = tuple(dict.fromkeys(class_of(label, names) for label in labels))
    called = tuple(names[label] for label in classes)
    return classes, () if called == tuple(map(str, classes)) else called


def weights_of(folder: RunFolder) -> dict[str, Any] | None:
    """Return the file of the weights that a run began with, its size and SHA-256; None if the seed made them.

    Raises
    ------
    RunCorrupt
        If the record is damaged.
    """
    found: dict[str, Any] | None = _read(folder).get("sources", {}).get("model.weights")
    return found


def check_record(
    folder: RunFolder, config: RunConfig, class_names: Sequence[str], project: Mapping[str, str]
) -> list[str]:
    """Return a note for each data file, and for the project, if they have changed since the run was made.

    Raises
    ------
    BadInput
        If the data have other classes now.
    RunCorrupt
        If the record is damaged.
    """
    found = _read(folder)
    if not found:
        return []
    now = _sources(config)
    notes = [
        f"{key}: {was.get('path')} is not the file that the run was made with "
        f"(SHA-256 {str(now[key]['sha256'])[:12]}…, was {str(was.get('sha256'))[:12]}…)"
        for key, was in found["sources"].items()
        if key in now and now[key]["sha256"] != was.get("sha256")
    ]
    notes += notes_on_project(folder, config, project)
    if tuple(class_names) != class_names_of(folder):
        raise BadInput(
            f"run '{folder.name}': its classes are {some(class_names_of(folder))}, those of the data are "
            f"{some(class_names)} now; restore {config.data.name}"
        )
    return notes


def check_project(folder: RunFolder, config: RunConfig, project: Mapping[str, str]) -> None:
    """Refuse to train on with a project whose code is not what the run was made with; BadInput says so."""
    was = str(_read(folder).get("project", {}).get("sha256", ""))
    if was != (now := project.get("sha256", "")):
        raise BadInput(
            f"run.project: the code of {config.run.project} has changed since run '{folder.name}' was made "
            f"(SHA-256 {now[:12]}…, was {was[:12]}…): rounds of two codes would be in one model; go back to "
            "that code, or train anew"
        )


def notes_on_project(folder: RunFolder, config: RunConfig, project: Mapping[str, str]) -> list[str]:
    """Return a note if the code of a run's project has changed since the run was made."""
    was = _read(folder).get("project", {})
    if was.get("sha256") == project.get("sha256"):
        return []
    return [
        f"run.project: the code of {config.run.project} is not what the run was made with (SHA-256 "
        f"{project.get('sha256', '')[:12]}…, was {str(was.get('sha256'))[:12]}…)"
    ]


@dataclass(frozen=True)
class InputRecord:
    """The form of a run's inputs, and the scale of ``data.scale = "standard"``, empty where there is none."""

    forms: Forms
    scale: tuple[float, ...]


def write_inputs(folder: RunFolder, columns: Columns | None, record: InputRecord) -> None:
    """Record what the inputs of a new run are like, so that others can be made like them."""
    if columns is not None:
        write_json(folder.path / COLUMNS, columns.to_json())
    forms = {name: form.to_json() for name, form in record.forms.items()}
    write_json(folder.path / INPUTS, {"parts": forms, "scale": list(record.scale)})


def columns_of(folder: RunFolder) -> Columns | None:
    """Return the schema of a run's tables; None if it has none.

    Raises
    ------
    RunCorrupt
        If the file is damaged.
    """
    if (path := record_path(folder, COLUMNS)) is None:
        return None
    try:
        return Columns.from_json(read_json(path), str(path))
    except BadInput as error:
        raise RunCorrupt(f"{error}") from None


def recorded_inputs(folder: RunFolder) -> InputRecord | None:
    """Return what a run recorded of its inputs; None for a run made before that was recorded.

    Raises
    ------
    RunCorrupt
        If the file is damaged.
    """
    if (path := record_path(folder, INPUTS)) is None:
        return None
    found = read_json(path)
    scale = found.get("scale")
    try:
        forms = forms_from(found.get("parts"))
    except ValueError as error:
        raise RunCorrupt(f"{path}: damaged, {error}") from None
    if not isinstance(scale, list) or len(scale) % 2 or not all(isinstance(n, float) for n in scale):
        raise RunCorrupt(f"{path}: damaged, expected as many means as deviations")
    return InputRecord(forms, tuple(scale))


def _sources(config: RunConfig) -> dict[str, dict[str, Any]]:
    named = {"data.name": config.data.name, "data.public": config.data.public}
    places = {key: place for key, name in named.items() if (place := own_place(name)) is not None}
    if config.model.weights and (weights := weights_file(config.model.weights)).exists():
        places["model.weights"] = weights
    return {key: identity(place) for key, place in places.items()}


def _read(folder: RunFolder) -> dict[str, Any]:
    if (path := record_path(folder, DATA)) is None:
        return {}
    found = read_json(path)
    names, sources = found.get("class-names"), found.get("sources")
    whole = isinstance(names, list) and all(isinstance(name, str) for name in names)
    whole = whole and isinstance(found.get("project", {}), dict)
    if not whole or not isinstance(sources, dict) or not all(isinstance(s, dict) for s in sources.values()):
        raise RunCorrupt(f"{path}: damaged, expected class names and the files of the data")
    return found

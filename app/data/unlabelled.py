"""Reads inputs without targets, as a run reads those that it trains on.

What is read: a csv or parquet table, an npz file, an image or a folder of images (in folders of classes or
not), and in Python tensors, arrays, a dict of them, a frame, or a Dataset of inputs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from app.data.columns import Columns, checked_frame
from app.data.datasets import TARGET_KEYS
from app.data.forms import ONE, Form, Forms
from app.data.images import SUFFIXES, Headers, ImageFiles, find_images
from app.data.npz import inputs_of, read_npz_arrays
from app.data.pool import Pool
from app.data.shaping import resized
from app.data.tables import SUFFIXES as TABLES, read_frame
from app.data.terms import Terms
from app.data.values import as_input, inputs_tensor
from strategies.core.dataset_examples import DatasetExamples, Source, StoredParts
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, Inputs, TensorExamples, num_rows

_KEYS = ("x", "x_test", "x_train")
"""Arrays of an npz file that may hold the inputs; the first that is there does."""
_IMAGE_DIMS = 3
_MOST_NAMED = 5
"""Columns that a note names."""
_WANTED = (
    "a path, a tensor or array, a dict of them, a pandas DataFrame, or a torch Dataset whose items are inputs"
)


@dataclass(frozen=True)
class Wanted:
    """What a run's inputs are like.

    Parameters
    ----------
    forms
        Shape and type of each part; empty: not known.
    columns
        How a table's columns become numbers; None: in the order of the table.
    terms
        The scale of the columns.
    size
        Side of the square that images are scaled to; 0: they are not.
    target
        Name of the targets, which are no input; empty: as a project's data may call them.
    built_in
        Whether the run reads its files itself, and not a project.
    read
        What reads a file in a project, and returns inputs; None: nothing does.
    """

    forms: Forms = field(default_factory=dict)
    columns: Columns | None = None
    terms: Terms = field(default_factory=Terms)
    size: int = 0
    target: str = ""
    built_in: bool = True
    read: Callable[[Path], Any] | None = None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of one input; None if it is not known, or has several parts."""
        return self.forms[ONE].shape if ONE in self.forms else None


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Inputs; the targets of `examples` mean nothing. `names` are those of files, if they are files."""

    examples: Examples
    names: Sequence[str] = ()
    notes: tuple[str, ...] = ()


def read_inputs(thing: object, wanted: Wanted) -> Unlabelled:
    """Return inputs, encoded, sized and scaled as the run's training data were.

    Raises
    ------
    BadInput
        If there are none, or they do not fit the run's; in one line.
    """
    if isinstance(thing, str | Path):
        found = _from_path(Path(thing).expanduser(), wanted)
    else:
        found = Unlabelled(_adapted(thing, wanted, "inputs"))
    if not len(found.examples):
        raise BadInput("inputs: there are none; wanted at least one")
    return replace(found, examples=wanted.terms.scaled(found.examples))


def _from_path(path: Path, wanted: Wanted) -> Unlabelled:
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder on this machine")
    if wanted.read is not None:
        return Unlabelled(_adapted(wanted.read(path), wanted, str(path)))
    notes = () if wanted.built_in else (_guessed(path),)
    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        found = _images(path, wanted)
        return replace(found, notes=(*notes, *found.notes))
    if path.suffix.lower() in TABLES:
        frame = read_frame(path)
        made = _table(frame, wanted, str(path))
        return Unlabelled(made, notes=(*notes, *_filled_in(frame, wanted.columns, str(path))))
    parts, read = _arrays(path, wanted)
    return Unlabelled(_stored(parts, wanted, str(path)), notes=(*notes, *read))


def _guessed(path: Path) -> str:
    return (
        f"{path}: the project does not say how files are read (lethe.Project(inputs=)); numbers are taken as "
        "they are, and pixels as 0 to 1"
    )


def _images(path: Path, wanted: Wanted) -> Unlabelled:
    shape = wanted.shape
    if shape is None or len(shape) != _IMAGE_DIMS or shape[0] not in (1, 3):
        kind = "several parts" if shape is None else f"shape {shape}"
        raise BadInput(f"{path}: holds images, and the run's inputs have {kind}; give a file of such inputs")
    found = find_images(path) if path.is_dir() else None
    files = [path] if found is None else list(found.files)
    if not files:
        raise BadInput(f"{path}: has no images; wanted {', '.join(sorted(SUFFIXES))}")
    _check_images(path, Headers.of(files), shape, wanted.size)
    pool = Pool(ImageFiles(files, (shape[0], shape[1], shape[2])), torch.zeros(len(files), dtype=torch.int64))
    names = [file.name if found is None else file.relative_to(path).as_posix() for file in files]
    return Unlabelled(pool.all(), names, () if found is None else tuple(found.notes(path)))


def _check_images(path: Path, headers: Headers, shape: tuple[int, ...], size: int) -> None:
    if shape[0] == 1 and not headers.grey:
        raise BadInput(f"{path}: holds coloured images, and the run's are grey; convert them")
    for (height, width), file in headers.shapes.items():
        if (height, width) != shape[1:] and not size:
            raise BadInput(
                f"{file}: is {width}×{height}, and the run's images are {shape[2]}×{shape[1]}; it was "
                "trained without data.size, which would scale them: crop or scale it first"
            )


def _table(frame: Any, wanted: Wanted, where: str) -> Examples:
    frame = checked_frame(frame, where)
    columns = wanted.columns or _columns_in_order(frame, wanted, where)
    return _stored({ONE: columns.apply(frame, where)}, wanted, where)


def _filled_in(frame: Any, columns: Columns | None, where: str) -> Iterator[str]:
    """Yield a note on values that are missing where none was in training, so that the model is not told."""
    known = () if columns is None else columns.columns
    told = [c.name for c in known if c.kind == "number" and not c.indicator]
    if lacking := [name for name in told if frame[name].isna().any()]:
        rows = int(frame[lacking].isna().any(axis=1).sum())
        shown = ", ".join(map(repr, lacking[:_MOST_NAMED])) + (", …" if len(lacking) > _MOST_NAMED else "")
        yield (
            f"{where}: {rows} of {len(frame)} rows lack a value of {shown}, which no row lacked in training; "
            "the mean in training stands in for it"
        )


def _columns_in_order(frame: Any, wanted: Wanted, where: str) -> Columns:
    """Return the schema of a table for a run that recorded none: numbers alone, none missing."""
    shape = wanted.shape
    if shape is not None and len(shape) != 1:
        raise BadInput(f"{where}: is a table, and the run's inputs have shape {shape}; give such inputs")
    names = (wanted.target,) if wanted.target else TARGET_KEYS
    columns = Columns.of(frame.drop(columns=[name for name in names if name in frame.columns]), where=where)
    if needs := [c.name for c in columns.columns if c.kind == "category" or c.indicator]:
        raise BadInput(
            f"{where}: column {needs[0]!r} holds texts or lacks values, and the run has no schema of its "
            "columns (data.columns) that says what becomes of them"
        )
    return columns


def _arrays(path: Path, wanted: Wanted) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    arrays = read_npz_arrays(path)
    if wanted.forms and ONE not in wanted.forms:
        if lacking := [name for name in wanted.forms if name not in arrays]:
            raise BadInput(
                f"{path}: holds {_listed(arrays)}; wanted {lacking[0]}, a part of the run's inputs"
            )
        return {name: inputs_tensor(arrays[name], str(path)) for name in wanted.forms}, ()
    key = next((key for key in _KEYS if key in arrays), None)
    if key is None:
        raise BadInput(f"{path}: holds {_listed(arrays)}; wanted x, the inputs")
    others = [other for other in _KEYS if other in arrays and other != key]
    notes = (f"{path}: {key} is read, and {', '.join(others)} is not",) if others else ()
    if not wanted.built_in:
        return {ONE: inputs_tensor(arrays[key], str(path), wanted.size)}, notes
    if not arrays[key].size:
        raise BadInput(f"{path}: {key} holds no input; wanted at least one")
    stored = inputs_of(path, key, arrays[key])
    if wanted.size and stored.dim() == _IMAGE_DIMS + 1:
        stored = resized(stored, wanted.size)
    return {ONE: Pool(stored, torch.zeros(len(stored))).all().batch(torch.arange(len(stored)))[0]}, notes  # type: ignore[dict-item]


def _listed(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(sorted(arrays)) or "nothing"


def _adapted(thing: object, wanted: Wanted, where: str) -> Examples:
    if isinstance(thing, Examples):
        return thing
    if type(thing).__module__.partition(".")[0] == "pandas" and hasattr(thing, "columns"):
        return _table(thing, wanted, where)
    if isinstance(thing, Mapping):
        parts = {str(name): inputs_tensor(part, where, wanted.size) for name, part in thing.items()}
        return _stored(parts, wanted, where)
    if isinstance(thing, Tensor | np.ndarray | list):
        return _stored({ONE: inputs_tensor(thing, where, wanted.size)}, wanted, where)
    if not hasattr(thing, "__getitem__") or not hasattr(thing, "__len__"):
        raise BadInput(f"{where}: given a {type(thing).__name__}, allowed {_WANTED}")
    return DatasetExamples.all_of(_Items(thing, wanted, where))


def _stored(parts: Mapping[str, Tensor], wanted: Wanted, where: str) -> Examples:
    fitted = _fitted(parts, wanted.forms, where)
    count = num_rows(fitted)
    if isinstance(fitted, Tensor):
        return TensorExamples(fitted, torch.zeros(count))
    if wrong := [name for name, part in fitted.items() if len(part) != count]:
        raise BadInput(
            f"{where}: its parts differ in number: {wrong[0]} has {len(fitted[wrong[0]])}, not {count}"
        )
    return DatasetExamples.all_of(StoredParts(fitted, torch.zeros(count)))


def _fitted(parts: Mapping[str, Tensor], forms: Forms, where: str) -> Inputs:
    """Return inputs, shape [n, ...] each, in the run's types; refuse those of another shape."""
    if not forms:
        return parts.get(ONE, parts)
    if parts.keys() != forms.keys():
        given, wanted = (", ".join(filter(None, each)) or "one tensor" for each in (parts, forms))
        raise BadInput(f"{where}: the inputs are {given}, and the run's are {wanted}")
    made = {name: _one_fitted(name, parts[name], form, where) for name, form in forms.items()}
    return made.get(ONE, made)


def _one_fitted(name: str, part: Tensor, form: Form, where: str) -> Tensor:
    part = part.unsqueeze(1) if form.shape[:1] == (1,) and tuple(part.shape[1:]) == form.shape[1:] else part
    of = f" of {name}" if name else ""
    if not form.fits(part):
        raise BadInput(
            f"{where}: the inputs{of} have shape {tuple(part.shape[1:])}, and the run's have {form.shape}"
        )
    typed = form.typed(part)
    if form.dtype == "int64" and typed.is_floating_point():
        raise BadInput(f"{where}: the inputs{of} are {typed.dtype}, and the run's are whole numbers")
    return typed


@final
class _Items(Source):
    """Inputs of a data set, read when a batch is asked for; of an item that is a pair, the first."""

    def __init__(self, dataset: Any, wanted: Wanted, where: str) -> None:
        self._dataset, self._wanted, self._where = dataset, wanted, where

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, index: Tensor) -> tuple[Inputs, Tensor]:
        items = [self._dataset[i] for i in index.tolist()]
        firsts = [item[0] if isinstance(item, tuple) else item for item in items]
        parts = [item if isinstance(item, Mapping) else {ONE: item} for item in firsts]
        names = [name for name in parts[0] if not self._wanted.forms or name in self._wanted.forms]
        stacked = {name: torch.stack([self._one(part, name) for part in parts]) for name in names}
        return _fitted(stacked, self._wanted.forms, self._where), torch.zeros(len(items))

    def _one(self, part: Mapping[str, Any], name: str) -> Tensor:
        form = self._wanted.forms.get(name)
        channels = form.shape[0] if form is not None and len(form.shape) == _IMAGE_DIMS else 0
        return as_input(part.get(name), self._where, self._wanted.size, channels)

    def known_targets(self) -> Tensor:
        return torch.zeros(len(self))

"""How the columns of a table become numbers, the same on every client.

The inputs are, in this order,

- every column of numbers (or of true and false), a missing value replaced by `Column.impute`;
- for each of them that lacked a value when the schema was made, a column that is 1 where it is missing;
- for each column of texts, one column per category that is 1 where the value is that category; a missing
  value is the last category if the schema has seen one, and otherwise none of them.

`Columns.of` makes the schema of a frame as scikit-learn would: the inputs are those of a ColumnTransformer of
``SimpleImputer(strategy="mean", add_indicator=True)`` for numbers and ``OneHotEncoder`` for texts. A category
that the schema does not know is refused, or gives 0 in all columns with ``unknown = "ignore"``, as
``OneHotEncoder(handle_unknown="ignore")`` does. There is one schema in a run, and the
server sends it: by a schema of its own, a client would number its categories in its own way.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor

from app.data.cells import inferred, no_category
from app.data.labels import some
from app.data.values import TargetRule
from strategies.core.errors import BadInput
from strategies.core.examples import GroupsOf, TensorExamples, labels_as_groups

_MOST_CATEGORIES = 1000
_MOST_LISTED = 20
Kind = Literal["number", "category"]


class UnknownCategory(BadInput):
    """A table holds a category that is none of the run's."""

    def __init__(self, column: str, found: Sequence[str], known: Sequence[str], where: str) -> None:
        rest = (
            f"no category of column {column!r} in the run, which has {some(known)}; add it to the schema "
            "that data.columns names, on the server"
        )
        which = f"{found[0]!r} is" if len(found) == 1 else f"{some(found)} are"
        self._unnamed = f"a value is {rest}"
        super().__init__(f"{where}: {which} {rest}")

    @property
    def unnamed(self) -> str:
        """The same message without the categories."""
        return self._unnamed


@final
@dataclass(frozen=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    impute
        Of numbers: what takes the place of a missing value.
    indicator
        Of numbers: whether a column tells where a value is missing.
    categories
        Of texts: the known values, in the order of their columns.
    missing
        Of texts: whether a missing value is one more category, the last.
    """

    name: str
    kind: Kind
    impute: float = 0.0
    indicator: bool = False
    categories: tuple[str, ...] = ()
    missing: bool = False


@final
@dataclass(frozen=True)
class Columns:
    """The schema of a table's inputs; a column that it does not name is not used."""

    columns: tuple[Column, ...]
    unknown: Literal["refuse", "ignore"] = "refuse"

    @staticmethod
    def of(frame: Any, target: str = "", where: str = "data") -> "Columns":
        """Return the schema of a pandas frame's columns, all but the target.

        Raises
        ------
        BadInput
            If a column holds neither numbers nor texts, no value, or too many different texts.
        """
        names = [str(name) for name in frame.columns if str(name) != target]
        if not names:
            raise BadInput(f"{where}: has no column besides the target {target!r}; wanted at least one")
        return Columns(tuple(_column_of(frame[name], name, where) for name in names))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the inputs, such as ``age``, ``age=missing``, ``sex=f``."""
        numbers, texts = self._of_kind("number"), self._of_kind("category")
        return (
            *(c.name for c in numbers),
            *(f"{c.name}=missing" for c in numbers if c.indicator),
            *(f"{c.name}={value}" for c in texts for value in (*c.categories, *["missing"] * c.missing)),
        )

    def check_common(self, where: str) -> None:
        """Refuse the schema of one client's own table, if another client's may be made of other categories.

        Raises
        ------
        BadInput
            Naming the first column that holds texts or lacks values.
        """
        needs = next((c.name for c in self.columns if c.kind == "category" or c.indicator), None)
        if needs is not None:
            raise BadInput(
                f"{where}: column {needs!r} holds texts or lacks values, of which every client must make the "
                "same inputs; write lethe.Columns.of(frame, target).to_json() of all that there can be to a "
                "file, and name it by data.columns"
            )

    def apply(self, frame: Any, where: str = "data") -> Tensor:
        """Return the inputs of a pandas frame's rows, shape [n, features], float32.

        Raises
        ------
        BadInput
            If a column is not there, does not hold numbers where the schema says so, or holds an unknown
            category.
        """
        if absent := [c.name for c in self.columns if c.name not in frame.columns]:
            raise BadInput(f"{where}: column {absent[0]!r} is not there; it has {_listed(frame)}")
        numbers = [(c, _numbers(frame[c.name], c.name, where)) for c in self._of_kind("number")]
        with np.errstate(over="ignore"):
            blocks = [_float32(np.where(np.isnan(values), c.impute, values)) for c, values in numbers]
        blocks += [_float32(np.isnan(values)) for c, values in numbers if c.indicator]
        blocks += [self._one_hot(frame[c.name], c, where) for c in self._of_kind("category")]
        table = torch.from_numpy(np.concatenate(blocks, axis=1))  # [n, features]
        if not bool(table.isfinite().all()):
            raise BadInput(
                f"{where}: holds numbers that are not finite or too large for float32; replace them"
            )
        return table

    def to_json(self) -> dict[str, Any]:
        """Return the schema as plain data."""
        return {"unknown": self.unknown, "columns": [asdict(column) for column in self.columns]}

    @staticmethod
    def from_json(document: object, where: str = "data.columns") -> "Columns":
        """Return the schema that plain data describe.

        Raises
        ------
        BadInput
            If they are no schema.
        """
        try:
            return _schema_from(document)
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{where}: no schema of a table's columns ({error}); {_WANTED}") from None

    @staticmethod
    def read(path: Path) -> "Columns":
        """Return the schema in a file; BadInput if there is none."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            raise BadInput(f"data.columns: given {path}, no such JSON file; {_WANTED}") from None
        return Columns.from_json(document, f"data.columns: {path}")

    def _of_kind(self, kind: Kind) -> list[Column]:
        return [column for column in self.columns if column.kind == kind]

    def _one_hot(self, values: Any, column: Column, where: str) -> np.ndarray:
        texts, missing = _texts(values)
        different, positions = np.unique(texts, return_inverse=True)
        known = {name: place for place, name in enumerate(column.categories)}
        unknown = [text for text in different.tolist() if text not in known and text != _ABSENT]
        if unknown and self.unknown == "refuse":
            raise UnknownCategory(column.name, unknown, column.categories, where)
        width = len(column.categories) + column.missing
        rows = np.zeros((len(different), width), dtype=np.float32)  # One row per text
        for place, text in enumerate(different.tolist()):
            if text in known:
                rows[place, known[text]] = 1.0
        table = rows[positions]
        if column.missing:
            table[missing, -1] = 1.0
        return table


_ABSENT = "\0"
"""Stands for a missing text, and is none itself."""
_WANTED = (
    'wanted {"columns": [{"name": …, "kind": "number", "impute": …} or {"name": …, "kind": "category", '
    '"categories": […]}, …]}'
)


def checked_frame(frame: Any, where: str) -> Any:
    """Return a pandas frame whose columns are named by texts, the same one if they are.

    Raises
    ------
    BadInput
        If it has no row, or two columns of one name.
    """
    names = [str(name) for name in frame.columns]
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise BadInput(f"{where}: has two columns named {twice[0]!r}; rename one")
    if not len(frame):
        raise BadInput(f"{where}: holds no row; wanted at least one")
    return frame if names == list(frame.columns) else frame.set_axis(names, axis=1)


def target_of(frame: Any, target: str, where: str, key: str = "data.target") -> Any:
    """Return the target's column of a pandas frame; `key` is what the user names it by.

    Raises
    ------
    BadInput
        If it is not there, or lacks a value.
    """
    if target not in frame.columns:
        raise BadInput(f"{where}: {key}: given {target!r}, allowed one of its columns, {_listed(frame)}")
    if lacking := int(frame[target].isna().sum()):
        raise BadInput(
            f"{where}: the target {target!r} is missing in {lacking} of {len(frame)} rows; remove them, or "
            "fill it in"
        )
    return frame[target]


def frame_target(frame: Any, target: str, where: str) -> Any:
    """Return the target's column of a project's frame; raises as `target_of` does."""
    return target_of(checked_frame(frame, where), target, where, "lethe.Project(target=)")


def _listed(frame: Any) -> str:
    """Return a frame's columns as they would be written, so that blanks are seen."""
    names = [repr(str(name)) for name in frame.columns]
    return ", ".join(names if len(names) <= _MOST_LISTED else [*names[:_MOST_LISTED], f"… ({len(names)})"])


def frame_examples(
    frame: Any,
    target: str,
    rule: TargetRule,
    columns: Columns | None = None,
    group_of: GroupsOf = labels_as_groups,
    *,
    whole: bool = False,
) -> TensorExamples:
    """Return the examples of a pandas frame.

    Parameters
    ----------
    columns
        None: allowed where the frame holds nothing but numbers and lacks none.
    whole
        Whether these are all examples of the run, so that the schema may be theirs.

    Raises
    ------
    BadInput
        If the frame needs a schema, or the target or a column is not as wanted.
    """
    frame = checked_frame(frame, rule.where)
    targets = rule.tensor(frame_target(frame, target, rule.where).to_numpy())
    if columns is None:
        columns = Columns.of(frame, target, rule.where)
        if not whole:
            columns.check_common(rule.where)
    return TensorExamples(columns.apply(frame, rule.where), targets, group_of)


def _column_of(values: Any, name: str, where: str) -> Column:
    if values.isna().all():
        raise BadInput(f"{where}: column {name!r} holds no value; remove it")
    values = inferred(values)
    kind = getattr(values.dtype, "kind", "O")
    if kind in "biuf":
        numbers = _numbers(values, name, where)
        return Column(name, "number", float(np.nanmean(numbers)), bool(np.isnan(numbers).any()))
    if kind in "Mmc":
        raise BadInput(f"{where}: column {name!r} holds {values.dtype}; wanted numbers or texts: convert it")
    if fault := no_category(values):
        raise BadInput(f"{where}: column {name!r} {fault}")
    texts, missing = _texts(values)
    different = sorted(set(texts[~missing].tolist()))
    if len(different) > _MOST_CATEGORIES:
        raise BadInput(
            f"{where}: column {name!r} holds {len(different)} different texts, at most {_MOST_CATEGORIES} "
            "can be categories; remove it, or leave it out of the schema in data.columns"
        )
    return Column(name, "category", categories=tuple(different), missing=bool(missing.any()))


def _numbers(values: Any, name: str, where: str) -> np.ndarray:
    try:
        found: np.ndarray = values.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise BadInput(f"{where}: column {name!r} holds {values.dtype}, wanted numbers") from None
    if wrong := found[np.isinf(found)].tolist():
        raise BadInput(f"{where}: column {name!r} holds {wrong[0]}; wanted finite numbers")
    return found


def _float32(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)[:, None]


def _texts(values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return values as texts, shape [n], and where they are missing."""
    missing: np.ndarray = values.isna().to_numpy(dtype=bool)
    texts = [
        _ABSENT if absent else _text(value)
        for value, absent in zip(values.tolist(), missing.tolist(), strict=True)
    ]
    return np.array(texts, dtype=object), missing


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _schema_from(document: object) -> Columns:
    if not isinstance(document, dict) or not document.get("columns"):
        raise ValueError("it names no column")
    unknown = document.get("unknown", "refuse")
    if unknown not in ("refuse", "ignore"):
        raise ValueError(f"unknown is {unknown!r}")
    return Columns(tuple(_column_from(dict(entry)) for entry in document["columns"]), unknown)


def _column_from(entry: dict[str, Any]) -> Column:
    kind = entry["kind"]
    if kind not in ("number", "category"):
        raise ValueError(f"kind {kind!r}")
    categories = tuple(str(each) for each in entry.get("categories", ()))
    if kind == "category" and not categories:
        raise ValueError(f"column {entry['name']!r} has no categories")
    return Column(
        str(entry["name"]),
        kind,
        float(entry.get("impute", 0.0)),
        bool(entry.get("indicator", False)),
        categories,
        bool(entry.get("missing", False)),
    )

"""A user's own table in a csv or parquet file: one column is the target, the others make the inputs.

The columns become numbers as `app.data.columns` says. Labels are whole numbers or texts (`app.data.labels`);
or the targets are numbers to be predicted.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from app.data.cells import notes_on_cells
from app.data.columns import Columns, checked_frame, target_of
from app.data.csv_files import read_csv
from app.data.labels import joint_classes, notes_on, texts_of
from app.data.pool import DataSet, Pool
from app.data.reading import Reading
from app.data.values import TargetRule
from strategies.core.errors import BadInput
from strategies.core.extras import not_installed

SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
"""Kinds of table by the suffix of their file."""
EXTRA = "tables"


def read_table(
    path: Path, how: Reading, class_names: Sequence[str] = (), columns: Columns | None = None
) -> DataSet:
    """Read a table.

    Parameters
    ----------
    class_names
        One per class of the run, for a file that is not the run's; empty: the labels in the file are the
        classes.
    columns
        The run's schema; None: the one of `how`, or that of the file.

    Raises
    ------
    BadInput
        If there is no such file, it is no table, the target or a column is not as wanted, or a label is no
        class of the run.
    """
    frame = read_frame(path)
    target = target_of(frame, how.target, str(path))
    if columns is None:
        columns = Columns.of(frame, how.target, str(path)) if how.schema is None else Columns.read(how.schema)
    names: tuple[str, ...] = ()
    if how.targets == "numbers":
        y = TargetRule("numbers", where=str(path)).tensor(target.to_numpy())
    else:
        y, names = _labelled(target, path, how.target, class_names)
    pool = Pool(columns.apply(frame, str(path)), y)
    notes = notes_on_cells(str(path), frame, [c.name for c in columns.columns], y)
    if names and not class_names:
        notes += notes_on(str(path), names, y.tolist())
    kind = SUFFIXES.get(path.suffix.lower(), "csv")
    return DataSet(f"{kind}:{path}", pool, None, names, tuple(notes), columns)


def read_frame(path: Path) -> Any:
    """Return a file as a pandas frame.

    Raises
    ------
    BadInput
        If there is none, it cannot be read, it holds no row, or the libraries are missing.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; give the path of a csv or parquet file on this machine")
    is_parquet = SUFFIXES.get(path.suffix.lower()) == "parquet"
    _require(path, ["pandas", *(["pyarrow"] if is_parquet else [])])
    import pandas as pd

    try:
        frame = pd.read_parquet(path) if is_parquet else read_csv(path)
    except BadInput:
        raise
    except (ValueError, OSError) as error:  # Also the errors of pandas' and pyarrow's parsers
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path}: cannot be read as a table ({reason})") from None
    return checked_frame(frame, str(path))


def _require(path: Path, libraries: Sequence[str]) -> None:
    if missing := [name for name in libraries if find_spec(name) is None]:
        raise BadInput(f"{path}: {not_installed(missing[0], EXTRA)}")


def _labelled(
    target: Any, path: Path, name: str, class_names: Sequence[str]
) -> tuple[Tensor, tuple[str, ...]]:
    values = target.to_numpy()
    found = texts_of(values.astype(str) if values.dtype.kind == "O" else values)
    if isinstance(found, str):
        raise BadInput(
            f'{path}: the target {name!r}: {found}; numbers to be predicted need data.targets = "numbers"'
        )
    classes, names = joint_classes([found], class_names, str(path), f"the target {name!r}")
    return classes[0], names

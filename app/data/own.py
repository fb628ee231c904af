"""Reads data of the user's own: the whole data set of a simulation or a server, or the data of one client."""

from collections.abc import Sequence
from pathlib import Path

from app.data.columns import Columns
from app.data.folder import read_client_folder, read_folder
from app.data.npz import read_npz
from app.data.pool import DataSet
from app.data.reading import Reading
from app.data.tables import SUFFIXES as TABLES, read_table
from strategies.core.errors import BadInput

OWN_KINDS = ("npz", "folder", "csv", "parquet")
"""What stands before the colon in the name of a data set of the user's own."""


def kind_of(path: Path) -> str:
    """Return the kind of data that a file or folder holds, by its suffix.

    >>> kind_of(Path("a.npz")), kind_of(Path("b.CSV"))
    ('npz', 'csv')
    """
    if path.is_dir():
        return "folder"
    return TABLES.get(path.suffix.lower(), "npz")


def read_own(kind: str, path: Path, how: Reading) -> DataSet:
    """Read a whole data set, whose classes and columns are those that it holds.

    Raises
    ------
    BadInput
        If it is missing or malformed.
    """
    if kind == "folder":
        _labels_only(path, how)
        return read_folder(path, how.size, how.lazy)
    if kind == "npz":
        return read_npz(path, targets=how.targets)
    return read_table(path, how)


def read_client(
    path: Path, how: Reading, class_names: Sequence[str], columns: Columns | None = None
) -> DataSet:
    """Read a client's own data, in the classes and columns of the run.

    Raises
    ------
    BadInput
        If they are missing or malformed, or of other classes or columns.
    """
    kind = kind_of(path)
    if kind == "folder":
        _labels_only(path, how)
        train, test = read_client_folder(path, class_names, how.size, how.lazy)
        return DataSet(f"folder:{path}", train, test, tuple(class_names))
    if kind == "npz":
        return read_npz(path, class_names, how.targets)
    return read_table(path, how, class_names, columns)


def _labels_only(path: Path, how: Reading) -> None:
    if how.targets == "numbers":
        raise BadInput(
            f'data.targets: given "numbers", but {path} is a folder of images in folders of classes; '
            'allowed "classes"'
        )

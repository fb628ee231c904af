"""Reads a csv file as people mean it: every row has as many fields as the header, or it is refused.

pandas alone takes a column for the index where rows are longer than the header, fills shorter ones up,
renames columns of one name and calls those without a name ``Unnamed: 0``, none of which anybody asked for.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from strategies.core.errors import BadInput

_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_csv(path: Path) -> Any:
    """Return a csv file as a pandas frame.

    Raises
    ------
    BadInput
        If it is empty or not in UTF-8, its fields are not separated by commas, its columns have no names of
        their own, or a row has more or fewer fields than the header; with the number of the line.
    """
    import pandas as pd

    try:
        _check(path)
        return pd.read_csv(path, index_col=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path}: is not in UTF-8 (byte {error.object[error.start]:#04x}); "
            "write it in UTF-8, as with DataFrame.to_csv(path, index=False)"
        ) from None
    except csv.Error as error:
        raise BadInput(f"{path}: cannot be read as a table ({error})") from None


def _check(path: Path) -> None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = next(_filled(rows), None)
        if header is None:
            raise BadInput(f"{path}: is empty; wanted a row of column names, and a row for each example")
        _check_header(path, header)
        begins = rows.line_num + 1
        for row in rows:
            if row and len(row) != len(header):
                raise BadInput(
                    f"{path}, line {begins}: has {_fields(row)}, but the header names {len(header)} columns; "
                    "give each row as many (quote a field that holds a comma)"
                )
            begins = rows.line_num + 1


def _filled(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    """Yield the rows that are not empty; pandas skips empty ones as well."""
    return (row for row in rows if row)


def _fields(row: Sequence[str]) -> str:
    return f"{len(row)} field{'s' if len(row) > 1 else ''}"


def _check_header(path: Path, header: Sequence[str]) -> None:
    if len(header) == 1 and (found := [sign for sign in _OTHER_SEPARATORS if sign in header[0]]):
        raise BadInput(
            f"{path}: its fields are separated by {_OTHER_SEPARATORS[found[0]]}; wanted commas, and decimal "
            "points (pandas reads it with sep= and decimal=, and to_csv(path, index=False) writes it so)"
        )
    if nameless := [place for place, name in enumerate(header, start=1) if not name.strip()]:
        raise BadInput(
            f"{path}: column {nameless[0]} has no name; name it, or leave the index out (index=False)"
        )
    if twice := [name for place, name in enumerate(header) if name in header[:place]]:
        raise BadInput(f"{path}: has two columns named {twice[0]!r}; rename one")

"""What the cells of a table's column are, where it is no column of numbers: categories, or something else.

What pandas leaves as texts is often no text: numbers with commas, dates, a sign for what is missing between
numbers. One category for each of these would be a table that nobody meant.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from torch import Tensor

_PLAIN = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NUMBER = re.compile(_PLAIN)
_DAY = r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}"
_NO_TEXTS = {
    re.compile(
        rf"(?:{_DAY})(?:[ T]\d{{1,2}}:\d{{2}}.*)?"
    ): "make numbers of dates (days since one), or remove it",
    re.compile(
        rf"[+-]?\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|{_PLAIN}"
    ): "write numbers without commas between digits",
    re.compile(rf"[+-]?\d*(?:\.\d{{3}})*,\d+|{_PLAIN}"): "write numbers with a decimal point",
    re.compile(rf"(?:{_PLAIN}) ?%"): "write percentages as numbers",
}
"""Texts that stand for something else, and what to do."""
_NUMBERS_TO_ONE = 10
"""Where at most one value in so many is no number, it is no category, but a sign for something missing."""
_FEWEST_IDS = 20
"""Rows below which different values in all of them are nothing special."""


def inferred(values: Any) -> Any:
    """Return a pandas column of objects as numbers if all it holds are such; others as they are."""
    if values.dtype != object:
        return values
    held = {type(value) for value in values.dropna()}
    return values.astype(float) if held and held <= {Decimal, int, float} else values.infer_objects()


def no_category(values: Any) -> str:
    """Return what is wrong with the values of a pandas column as categories, in words; empty: nothing."""
    held = values.dropna().tolist()
    if strange := [value for value in held if not isinstance(value, str | bool | int | float)]:
        return f"holds {type(strange[0]).__name__}; wanted numbers or texts: convert it"
    texts = [str(value).strip() for value in held]
    for pattern, instead in _NO_TEXTS.items():
        if all(map(pattern.fullmatch, texts)) and not all(map(_NUMBER.fullmatch, texts)):
            shown = next(text for text in texts if not _NUMBER.fullmatch(text))
            return f"holds texts such as {shown!r}; {instead}"
    others = [text for text in texts if not _NUMBER.fullmatch(text)]
    if 0 < _NUMBERS_TO_ONE * len(others) <= len(texts):
        return (
            f"holds numbers, but {others[0]!r} in {len(others)} of {len(texts)} rows; leave a missing value "
            "empty, or name the column as a category in data.columns"
        )
    return ""


def notes_on_cells(where: str, frame: Any, names: Sequence[str], targets: Tensor) -> list[str]:
    """Return notes on a target of one value, and on the columns `names` that tell all rows apart."""
    notes = [
        f"{where}: column {name!r} {kind}; if it only numbers or names the rows, remove it"
        for name in names
        if (kind := _telling_apart(frame[name]))
    ]
    if targets.is_floating_point() and len(targets) > 1 and bool((targets == targets[0]).all()):
        notes.append(
            f"{where}: the target is {float(targets[0]):g} in every row: there is nothing to predict"
        )
    return notes


def _telling_apart(values: Any) -> str:
    """Return how a column tells all rows apart, in words; empty: it does not."""
    if len(values) < _FEWEST_IDS or not values.is_unique or values.isna().any():
        return ""
    kind = getattr(values.dtype, "kind", "O")
    if kind in "iu":
        consecutive = int(values.max()) - int(values.min()) == len(values) - 1
        return "numbers the rows" if consecutive else ""
    return "" if kind in "bf" else "holds another text in every row"

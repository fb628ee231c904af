"""app/data/cells.py: texts that are no categories are refused, and columns that tell rows apart are noted."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch

from app.data.cells import inferred, no_category, notes_on_cells
from app.data.columns import Columns
from strategies.core.errors import BadInput


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["1,5", "2,25", "3"], "holds texts such as '1,5'; write numbers with a decimal point"),
        (["1.234,5", "2,25"], "holds texts such as '1.234,5'; write numbers with a decimal point"),
        (["1,500", "12,000.5", "7"], "such as '1,500'; write numbers without commas between digits"),
        (["2020-01-31", "2021-12-01 08:30"], "such as '2020-01-31'; make numbers of dates"),
        (["31.1.2020", "1/2/2021", None], "such as '31.1.2020'; make numbers of dates"),
        (["5%", "7.5 %"], "such as '5%'; write percentages as numbers"),
        (
            [*map(str, range(20)), "?"],
            r"holds numbers, but '\?' in 1 of 21 rows; leave a missing value empty",
        ),
        ([[1], [2]], "holds list; wanted numbers or texts"),
    ],
)
def test_no_categories(values: list[object], said: str) -> None:
    assert said.replace("\\", "") in no_category(pd.Series(values, dtype=object))
    with pytest.raises(BadInput, match=f"^t: column 'a' .*{said}"):
        Columns.of(pd.DataFrame({"a": pd.Series(values, dtype=object)}), "", "t")


@pytest.mark.parametrize(
    "values",
    [
        ["Rome", "Oslo", None],
        ["1st", "2nd", "3"],
        ["12a", "13", "14", "15"],
        ["a,b", "1,5"],
        [True, None, False],
        ["0-9", "10-19"],
        ["x", "2020-01-31"],
    ],
)
def test_categories(values: list[object]) -> None:
    """Some texts that look like numbers or dates are categories, where others beside them are none."""
    assert not no_category(pd.Series(values, dtype=object))


def test_numbers_as_objects() -> None:
    """Whole numbers, floats and decimals in a column of objects are numbers, also with gaps."""
    for values in ([1, 2], [1.5, None], [Decimal("1.5"), 2]):
        column = inferred(pd.Series(values, dtype=object))
        assert column.dtype.kind in "if"
        assert column.dropna().tolist() == [float(value) for value in values if value is not None]
    assert inferred(pd.Series(["1", "2"], dtype=object)).tolist() == ["1", "2"]
    assert Columns.of(pd.DataFrame({"a": [Decimal("1.5"), Decimal("2.5")]})).columns[0].impute == 2.0


def test_columns_that_tell_rows_apart() -> None:
    """Row numbers and names are noted; measurements that happen to differ, and few rows, are not."""
    count = 20
    frame = pd.DataFrame(
        {
            "id": np.arange(100, 100 + count)[::-1],
            "name": [f"p{i}" for i in range(count)],
            "weight": np.arange(count) * 1.5,
            "year": np.arange(count) * 3,
            "group": ["x", "y"] * (count // 2),
        }
    )
    notes = notes_on_cells("t", frame, list(frame), torch.arange(count))
    assert [note.partition(";")[0] for note in notes] == [
        "t: column 'id' numbers the rows",
        "t: column 'name' holds another text in every row",
    ]
    assert not notes_on_cells("t", frame.iloc[:-1], list(frame), torch.arange(count))


def test_a_target_of_one_value() -> None:
    (note,) = notes_on_cells("t", pd.DataFrame({"a": [1, 2]}), ["a"], torch.tensor([2.5, 2.5]))
    assert note.startswith("t: the target is 2.5 in every row")
    assert not notes_on_cells("t", pd.DataFrame({"a": [1, 2]}), ["a"], torch.tensor([2.5, 3.5]))

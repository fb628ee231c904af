"""app/data/columns.py: the inputs of a table are those that scikit-learn makes of it, on every client."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder

from app.data.columns import Column, Columns, UnknownCategory, frame_examples, target_of
from app.data.values import TargetRule
from strategies.core.errors import BadInput

CLASSES = TargetRule("classes", where="t.csv")


def people() -> pd.DataFrame:
    """Return four people, one of unknown age and one of unknown city."""
    return pd.DataFrame(
        {
            "age": [20.0, None, 40.0, 60.0],
            "city": ["Rome", "Oslo", None, "Rome"],
            "smokes": [True, False, False, True],
            "ill": [1, 0, 0, 1],
        }
    )


def test_by_hand() -> None:
    """The unknown age becomes the mean 40 and is marked; the cities are Oslo, Rome and missing."""
    columns = Columns.of(people(), "ill")
    assert columns.names == ("age", "smokes", "age=missing", "city=Oslo", "city=Rome", "city=missing")
    assert columns.apply(people()).tolist() == [
        [20, 1, 0, 0, 1, 0],
        [40, 0, 1, 1, 0, 0],
        [40, 0, 0, 0, 0, 1],
        [60, 1, 0, 0, 1, 0],
    ]


def sklearn_inputs(fitted: pd.DataFrame, frame: pd.DataFrame) -> np.ndarray:
    """Return what scikit-learn's transformers, fitted on one frame, make of another."""
    transformer = ColumnTransformer(
        [
            ("numbers", SimpleImputer(add_indicator=True), ["a", "b"]),
            ("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["c"]),
        ]
    )
    return np.asarray(transformer.fit(fitted).transform(frame))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_as_scikit_learn(data: st.DataObject) -> None:
    """Generated frames with gaps, and others with categories that the first does not have."""

    def frame() -> pd.DataFrame:
        count = data.draw(st.integers(2, 8))
        number = st.one_of(st.none(), st.integers(-50, 50))
        text = st.one_of(st.none(), st.sampled_from(["x", "yy", "z 1"]))
        return pd.DataFrame(
            {
                "a": pd.array([0, *(data.draw(number) for _ in range(count - 1))], dtype="Float64").astype(
                    float
                ),
                "b": pd.Series([1.5, *(data.draw(number) for _ in range(count - 1))], dtype=float),
                "c": pd.Series(["x", *(data.draw(text) for _ in range(count - 1))], dtype=object),
            }
        )

    fitted, other = frame(), frame()
    columns = Columns(Columns.of(fitted).columns, "ignore")
    for each in (fitted, other):
        wanted = sklearn_inputs(fitted.replace({None: np.nan}), each.replace({None: np.nan}))
        assert torch.allclose(columns.apply(each), torch.from_numpy(wanted).float())


def test_of_any_file(tmp_path: Path) -> None:
    """A schema that was written and read again is the same; a column that it does not name is not used."""
    columns = Columns.of(people(), "ill")
    (tmp_path / "columns.json").write_text(json.dumps(columns.to_json()))
    again = Columns.read(tmp_path / "columns.json")
    assert again == columns
    assert again.apply(people().assign(more=1.0)).equal(columns.apply(people()))


def test_numbers_as_categories() -> None:
    """A schema may take whole numbers, such as codes, as categories, also where a gap made them floats."""
    codes = Columns((Column("code", "category", categories=("7", "9")),))
    assert codes.apply(pd.DataFrame({"code": [9, 7]})).tolist() == [[0, 1], [1, 0]]
    assert codes.apply(pd.DataFrame({"code": [9.0, None]})).tolist() == [[0, 1], [0, 0]]


def test_examples_of_a_frame() -> None:
    """Labels may be texts with names; a frame of plain numbers needs no schema, another one does."""
    plain = people()[["smokes", "ill"]]
    examples = frame_examples(plain, "ill", CLASSES)
    assert (examples.x.tolist(), examples.y.tolist()) == ([[1], [0], [0], [1]], [1, 0, 0, 1])
    named = TargetRule("classes", ("Oslo", "Rome"))
    assert frame_examples(people().dropna()[["age", "city"]], "city", named).y.tolist() == [1, 1]
    ages = frame_examples(people().dropna()[["age", "ill"]], "age", TargetRule("numbers"))
    assert (ages.y.dtype, ages.groups()) == (torch.float32, None)
    whole = frame_examples(people(), "ill", CLASSES, whole=True)
    assert whole.x.equal(Columns.of(people(), "ill").apply(people()))
    with pytest.raises(BadInput) as refused:
        frame_examples(people(), "ill", CLASSES)
    assert str(refused.value) == (
        "t.csv: column 'age' holds texts or lacks values, of which every client must make the same inputs; "
        "write lethe.Columns.of(frame, target).to_json() of all that there can be to a file, and name it by "
        "data.columns"
    )


def test_category_of_one_client_only() -> None:
    """Paris is no category of the run: one line names it, and another one does not."""
    columns = Columns.of(people(), "ill")
    with pytest.raises(UnknownCategory) as refused:
        columns.apply(people().assign(city="Paris"), "b.csv")
    rest = (
        "no category of column 'city' in the run, which has Oslo, Rome; add it to the schema that "
        "data.columns names, on the server"
    )
    assert str(refused.value) == f"b.csv: 'Paris' is {rest}"
    assert refused.value.unnamed == f"a value is {rest}"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"when": pd.to_datetime(["2020-01-01"] * 2)},
            r"column 'when' holds datetime64\[\w+\]; wanted numbers",
        ),
        ({"none": [None, None]}, "column 'none' holds no value; remove it"),
        ({"big": [np.inf, 1.0]}, "column 'big' holds inf; wanted finite numbers"),
        ({}, "has no column besides the target 'y'; wanted at least one"),
    ],
)
def test_columns_that_are_none(values: dict[str, object], said: str) -> None:
    """What is no number and no text is refused, naming the column."""
    with pytest.raises(BadInput, match=f"^t: {said}"):
        Columns.of(pd.DataFrame({**values, "y": [0, 1]}), "y", "t")


def test_too_many_texts() -> None:
    """A column of names is no category."""
    with pytest.raises(BadInput, match=r"^t: column 'name' holds 1001 different texts, at most 1000 can be"):
        Columns.of(pd.DataFrame({"name": [f"p{i}" for i in range(1001)]}), "", "t")


def test_wrong_files() -> None:
    """A target or a column that is not there, or is missing or of another kind, is named."""
    with pytest.raises(
        BadInput,
        match=r"^t: data.target: given 'x', allowed one of its columns, 'age', 'city', 'smokes', 'ill'$",
    ):
        target_of(people(), "x", "t")
    with pytest.raises(BadInput, match=r"^t: the target 'age' is missing in 1 of 4 rows; remove them"):
        target_of(people(), "age", "t")
    columns = Columns.of(people(), "ill")
    with pytest.raises(BadInput, match=r"^t: column 'age' is not there; it has 'city', 'smokes', 'ill'$"):
        columns.apply(people().drop(columns="age"), "t")
    with pytest.raises(BadInput, match=r"^t: column 'age' holds (object|str), wanted numbers$"):
        columns.apply(people().assign(age="old"), "t")
    for wrong in (
        [],
        {"columns": []},
        {"columns": [{"name": "a"}]},
        {"columns": [{"name": "a", "kind": "text"}]},
    ):
        with pytest.raises(BadInput, match=r"^data.columns: no schema of a table's columns \(.*\); wanted"):
            Columns.from_json(wrong)
    with pytest.raises(BadInput, match=r"^data.columns: given nowhere.json, no such JSON file; wanted"):
        Columns.read(Path("nowhere.json"))

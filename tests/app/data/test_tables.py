"""app/data/tables.py: a csv and a parquet file are the same table."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from app.config.settings import DataSettings
from app.data import tables
from app.data.columns import Columns
from app.data.labels import UnknownLabels
from app.data.load import load_client_data, load_server_data
from app.data.reading import Reading
from app.data.sources import open_data_set
from app.data.tables import read_frame, read_table
from app.data.terms import Terms
from strategies.core.errors import BadInput

PATIENTS = pd.DataFrame(
    {"age": [30, 50, 70, 90], "city": ["Rome", "Oslo", "Rome", None], "ill": ["no", "yes", "no", "yes"]}
)
HOW = Reading(target="ill")


def written(path: Path, frame: pd.DataFrame = PATIENTS) -> Path:
    """Write a table as its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_by_hand(tmp_path: Path, name: str) -> None:
    """Age, then Oslo, Rome and missing; the label no is class 0."""
    found = read_table(written(tmp_path / name), HOW)
    assert found.train.stored.tolist() == [[30, 0, 1, 0], [50, 1, 0, 0], [70, 0, 1, 0], [90, 0, 0, 1]]
    assert (found.train.y.tolist(), found.class_names) == ([0, 1, 0, 1], ("no", "yes"))
    assert found.name == f"{name.partition('.')[2]}:{tmp_path / name}"
    again = open_data_set(found.name, HOW)
    assert again.train.stored.equal(found.train.stored)


def test_numbers_are_predicted_as_they_are(tmp_path: Path) -> None:
    """With targets numbers, ages stay numbers and there are no classes."""
    path = written(tmp_path / "t.csv")
    found = read_table(path, Reading(target="age", targets="numbers"))
    assert (found.train.y.tolist(), found.train.y.dtype) == ([30, 50, 70, 90], torch.float32)
    assert found.class_names == ()
    settings = DataSettings(
        name=f"csv:{path}", target="age", targets="numbers", clients=2, test_share=0.0, public="0"
    )
    server = load_server_data(settings, 0)
    assert (server.num_groups, server.input_shape, server.test) == (0, (5,), None)
    parts = [load_client_data(settings, 0, {"partition-id": i}) for i in range(2)]
    assert sorted(torch.cat([part.targets() for part in parts]).tolist()) == [30, 50, 70, 90]
    assert parts[0].groups() is None


def test_a_client_s_table_follows_the_run(tmp_path: Path) -> None:
    """Its own schema would have one city; the run's has two and a missing one. Unknown ones are named."""
    run = read_table(written(tmp_path / "t.csv"), HOW)
    own = written(tmp_path / "own.csv", PATIENTS.iloc[1:2])
    found = read_table(own, HOW, run.class_names, run.columns)
    assert (found.train.stored.tolist(), found.train.y.tolist()) == ([[50, 1, 0, 0]], [1])
    settings = DataSettings(name=f"csv:{tmp_path / 't.csv'}", target="ill", path=str(own), public="0")
    terms = load_server_data(settings, 0).terms
    assert load_client_data(settings, 0, {"client-id": "a"}, terms).x.tolist() == [[50, 1, 0, 0]]
    with pytest.raises(
        UnknownLabels, match=r"own\.csv: label perhaps is no class of the run, which has no, yes"
    ):
        read_table(written(own, PATIENTS.assign(ill="perhaps")), HOW, run.class_names, run.columns)
    with pytest.raises(BadInput, match=r"own\.csv: 'Bonn' is no category of column 'city' in the run"):
        read_table(written(own, PATIENTS.assign(city="Bonn")), HOW, run.class_names, run.columns)


def test_a_node_s_table_makes_no_schema_of_its_own(tmp_path: Path) -> None:
    """Where the server has no table, each node would number its categories by itself, without a word."""
    own = written(tmp_path / "own.csv")
    data = DataSettings(target="ill", path=str(own), public="0")
    terms = Terms(class_names=("no", "yes"))
    with pytest.raises(
        BadInput,
        match=r"own\.csv: column 'city' holds texts or lacks values, .*, and name it by data\.columns$",
    ):
        load_client_data(data, 0, {"client-id": "a"}, terms)
    cities = replace(terms, columns=read_table(own, HOW).columns)
    assert load_client_data(data, 0, {"client-id": "a"}, cities).input_shape == (4,)
    numbers = written(tmp_path / "numbers.csv", PATIENTS[["age", "ill"]].dropna())
    plain = data.model_copy(update={"path": str(numbers)})
    assert load_client_data(plain, 0, {"client-id": "a"}, terms).input_shape == (1,)


def test_a_schema_that_is_given_holds(tmp_path: Path) -> None:
    """data.columns may leave a column out, and name categories that the file lacks."""
    schema = tmp_path / "columns.json"
    schema.write_text(
        '{"columns": [{"name": "city", "kind": "category", "categories": ["Rome", "Oslo", "Bonn"]}]}'
    )
    found = read_table(written(tmp_path / "t.csv"), Reading(target="ill", columns=str(schema)))
    assert found.train.stored.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert found.columns == Columns.read(schema)


def test_what_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, no rows, no target, no labels, a broken file, a name twice, no library: one line each."""
    path = written(tmp_path / "t.csv")
    with pytest.raises(
        BadInput, match=r"t\.csv: data\.target: given '', allowed one of its columns, 'age', 'city', 'ill'$"
    ):
        read_table(path, Reading())
    with pytest.raises(BadInput, match=r'the target .x.: it holds 0\.5; .* need data\.targets = "numbers"$'):
        read_table(
            written(tmp_path / "x.csv", pd.DataFrame({"a": [1, 2], "x": [0.5, 1]})), Reading(target="x")
        )
    with pytest.raises(BadInput, match=r"none\.csv: no such file; give the path of a csv or parquet file"):
        read_frame(tmp_path / "none.csv")
    with pytest.raises(BadInput, match=r"e\.csv: holds no row; wanted at least one$"):
        read_frame(written(tmp_path / "e.csv", PATIENTS[:0]))
    (tmp_path / "b.parquet").write_bytes(b"PAR1 is not all")
    with pytest.raises(BadInput, match=r"b\.parquet: cannot be read as a table \("):
        read_frame(tmp_path / "b.parquet")
    (tmp_path / "n.csv").write_bytes(b"")
    with pytest.raises(BadInput, match=r"n\.csv: is empty; wanted a row of column names"):
        read_frame(tmp_path / "n.csv")
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"t\.csv: pandas is not installed: pip install 'lethe-fl\[tables\]'"):
        read_frame(path)

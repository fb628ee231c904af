"""Inputs without targets become what training inputs are: encoded, sized, scaled, or refused in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from app.data.columns import Columns
from app.data.folder import read_folder
from app.data.forms import ONE, Form
from app.data.terms import Terms
from app.data.unlabelled import Unlabelled, Wanted, read_inputs
from strategies.core.errors import BadInput
from strategies.core.examples import Inputs

GREY = Wanted({ONE: Form((1, 4, 4))})
FRAME = pd.DataFrame({"age": [1.0, 3.0, 5.0], "city": ["Oslo", "Rome", "Oslo"], "ill": [0, 1, 0]})
COLUMNS = Columns.of(FRAME, "ill")
TABLE = Wanted({ONE: Form((3,))}, COLUMNS, Terms(scale=(3.0, 0.0, 0.0, 2.0, 1.0, 1.0)))
PARTS = Wanted({"ids": Form((2,), "int64"), "mask": Form((2,))}, built_in=False)
PLAIN = Wanted({ONE: Form((2,))}, built_in=False)


def batch(found: Unlabelled) -> Inputs:
    return found.examples.batch(torch.arange(len(found.examples)))[0]


def image(path: Path, *shape: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(len(path.name)).integers(0, 255, shape, dtype=np.uint8)).save(path)
    return path


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_a_table_by_hand(tmp_path: Path) -> None:
    """Ages (1, 3, 5) minus 3, by 2; the city in two columns, in the schema's order; no target is needed."""
    FRAME[["city", "age"]].to_csv(tmp_path / "new.csv", index=False)
    wanted = [[-1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    for thing in (tmp_path / "new.csv", FRAME, FRAME.assign(more=1)):
        assert torch.as_tensor(batch(read_inputs(thing, TABLE))).tolist() == wanted


def test_a_value_that_stands_in_for_a_missing_one_is_said(tmp_path: Path) -> None:
    """The mean age of training, 3, is scaled to 0; where training knew of missing values, nothing is said."""
    file = tmp_path / "new.csv"
    FRAME.assign(age=[1.0, None, 5.0]).to_csv(file, index=False)
    found = read_inputs(file, TABLE)
    assert torch.as_tensor(batch(found))[:, 0].tolist() == [-1.0, 0.0, 1.0]
    assert found.notes == (
        f"{file}: 1 of 3 rows lack a value of 'age', which no row lacked in training; the mean in training "
        "stands in for it",
    )
    lacking = FRAME.assign(age=[1.0, None, 5.0])
    knows = Wanted({ONE: Form((4,))}, Columns.of(lacking, "ill"), Terms())
    assert read_inputs(file, knows).notes == ()
    FRAME.to_csv(file, index=False)
    assert read_inputs(file, TABLE).notes == ()


def test_images_are_those_of_training(tmp_path: Path) -> None:
    """In folders of classes, in one folder, and one alone; a size that differs is scaled as in training."""
    for name, side in (("a/1.png", 4), ("a/2.png", 6), ("b/1.png", 4)):
        image(tmp_path / "set" / name, side, side)
    trained = read_folder(tmp_path / "set", size=4).train.all()
    sized = Wanted({ONE: Form((1, 4, 4))}, size=4)
    found = read_inputs(tmp_path / "set", sized)
    assert found.names == ["a/1.png", "a/2.png", "b/1.png"]
    assert torch.equal(torch.as_tensor(batch(found)), torch.as_tensor(trained.batch(torch.arange(3))[0]))
    one = read_inputs(tmp_path / "set" / "b" / "1.png", GREY)
    assert one.names == ["1.png"]
    assert torch.equal(torch.as_tensor(batch(one))[0], torch.as_tensor(batch(found))[2])


def test_bytes_of_an_npz_file_become_pixels_and_floats_stay(tmp_path: Path) -> None:
    pixels = np.full((2, 4, 4), 51, dtype=np.uint8)
    found = torch.as_tensor(batch(read_inputs(npz(tmp_path / "p.npz", x=pixels), GREY)))
    assert found.shape == (2, 1, 4, 4)
    assert found.unique().tolist() == pytest.approx([0.2])
    both = npz(tmp_path / "f.npz", x_train=np.zeros((1, 4, 4)), x_test=np.ones((2, 4, 4)))
    read = read_inputs(both, GREY)
    assert len(read.examples) == 2
    assert read.notes == (f"{both}: x_test is read, and x_train is not",)


def test_inputs_of_several_parts(tmp_path: Path) -> None:
    ids, mask = np.array([[1, 2]]), np.array([[1, 0]])
    for thing in (npz(tmp_path / "t.npz", ids=ids, mask=mask), {"ids": ids, "mask": mask}):
        found = batch(read_inputs(thing, PARTS))
        assert isinstance(found, dict)
        assert found["ids"].dtype == torch.int64
        assert found["mask"].dtype == torch.float32


def test_a_project_reads_its_files_itself(tmp_path: Path) -> None:
    class Rows(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, i: int) -> Any:
            return torch.tensor([i, 1.0]), "a target"

    file = tmp_path / "x.special"
    file.touch()
    own = Wanted(PLAIN.forms, built_in=False, read=lambda path: Rows())
    assert torch.as_tensor(batch(read_inputs(file, own))).tolist() == [[0, 1], [1, 1], [2, 1]]
    assert read_inputs(file, own).notes == ()
    assert (
        "does not say how files are read"
        in read_inputs(npz(tmp_path / "x.npz", x=np.ones((1, 2))), PLAIN).notes[0]
    )


def test_numbers_in_order_where_there_is_no_schema() -> None:
    frame = pd.DataFrame({"a": [1, 2], "y": [0, 1], "b": [3.0, 4.0]})
    assert torch.as_tensor(batch(read_inputs(frame, PLAIN))).tolist() == [[1, 3], [2, 4]]


def test_refusals(tmp_path: Path) -> None:
    text = pd.DataFrame({"a": ["x"], "b": ["y"]})
    (tmp_path / "empty").mkdir()
    cases = [
        (tmp_path / "nothing.csv", TABLE, "no such file or folder"),
        (FRAME[["city"]], TABLE, "column 'age' is not there"),
        (FRAME.assign(city="Bonn"), TABLE, "'Bonn' is no category of column 'city'"),
        (FRAME[["age"]], GREY, r"is a table, and the run's inputs have shape \(1, 4, 4\)"),
        (text, PLAIN, "column 'a' holds texts or lacks values, and the run has no schema"),
        (image(tmp_path / "c" / "1.png", 4, 4, 3), GREY, "holds coloured images, and the run's are grey"),
        (image(tmp_path / "c" / "2.png", 5, 4), GREY, "is 4×5, and the run's images are 4×4"),
        (
            image(tmp_path / "c" / "3.png", 4, 4),
            TABLE,
            r"holds images, and the run's inputs have shape \(3,\)",
        ),
        (tmp_path / "empty", GREY, "has no images"),
        (npz(tmp_path / "1.npz", z=np.ones(2)), GREY, "holds z; wanted x, the inputs"),
        (npz(tmp_path / "2.npz", ids=np.ones(2)), PARTS, "holds ids; wanted mask"),
        (
            npz(tmp_path / "3.npz", x=np.ones((2, 5, 5))),
            GREY,
            r"have shape \(1, 5, 5\), and the run's have \(1, 4, 4\)",
        ),
        ({"ids": np.ones((1, 2)), "mask": np.ones((1, 2))}, PARTS, "of ids are torch.float32"),
        ({"ids": np.ones((1, 2), int)}, PARTS, "the inputs are ids, and the run's are ids, mask"),
        (
            {"ids": np.ones((1, 2), int), "mask": np.ones((3, 2))},
            PARTS,
            "its parts differ in number: mask has 3",
        ),
        (np.ones((0, 2)), PLAIN, "there are none"),
        (3, PLAIN, "given a int, allowed a path"),
        (np.full((1, 2), np.nan), PLAIN, "an input is not finite"),
    ]
    for thing, wanted, message in cases:
        with pytest.raises(BadInput, match=message):
            read_inputs(thing, wanted)

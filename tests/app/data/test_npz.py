from pathlib import Path

import numpy as np
import pytest
import torch

from app.data.npz import read_npz
from strategies.core.errors import BadInput


def written(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def labels(n: int, last: int = 1) -> np.ndarray:
    """Labels that count up to `last` and begin again."""
    return np.arange(n) % (last + 1)


def test_colour_images_become_channels_first_in_the_unit_interval(tmp_path: Path) -> None:
    """One 2×2 image; its red is full in the first row, its blue in the first column."""
    image = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    image[0, 0, :, 0] = 255
    image[0, :, 0, 2] = 255

    examples = read_npz(written(tmp_path, x_train=image, y_train=labels(1))).train.take(np.array([0]))

    red, green, blue = examples.x[0].tolist()
    assert red == [[1, 1], [0, 0]]
    assert green == [[0, 0], [0, 0]]
    assert blue == [[1, 0], [1, 0]]


@pytest.mark.parametrize(
    ("stored", "shape", "dtype"),
    [
        (np.zeros((2, 4, 5), np.uint8), (1, 4, 5), torch.uint8),
        (np.zeros((2, 4, 5, 1), np.uint8), (1, 4, 5), torch.uint8),
        (np.zeros((2, 4, 5, 4), np.uint8), (4, 4, 5), torch.uint8),
        (np.zeros((2, 4, 5), np.float64), (1, 4, 5), torch.float32),
        (np.zeros((2, 3, 4, 5), np.float16), (3, 4, 5), torch.float32),
        (np.zeros((2, 7), np.float32), (7,), torch.float32),
        (np.zeros((2, 7), np.int32), (7,), torch.float32),
        (np.zeros((2, 7), np.uint8), (7,), torch.float32),
        (np.zeros((2, 7), np.bool_), (7,), torch.float32),
        (np.zeros((2, 7), ">f8"), (7,), torch.float32),
    ],
)
def test_shapes_and_types(
    tmp_path: Path, stored: np.ndarray, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    data_set = read_npz(written(tmp_path, x=stored, y=labels(2)))

    assert data_set.input_shape == shape
    assert data_set.train.x.dtype == dtype


def test_a_table_is_taken_as_it_is(tmp_path: Path) -> None:
    table = np.array([[255, -1], [3, 4]])

    taken = read_npz(written(tmp_path, x=table, y=labels(2))).train.take(np.arange(2))

    assert taken.x.tolist() == [[255, -1], [3, 4]]


def test_classes_are_counted_over_training_and_test(tmp_path: Path) -> None:
    x = np.zeros((3, 2))

    data_set = read_npz(written(tmp_path, x_train=x, y_train=labels(3, 1), x_test=x, y_test=labels(3, 2)))

    assert data_set.class_names == ("0", "1", "2")
    assert data_set.test is not None
    assert data_set.test.y.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("given", "names", "classes"),
    [
        (np.array([7, 0, 900_000, 7]), ("0", "7", "900000"), [1, 0, 2, 1]),
        (np.array([-1, 1, 1, -1]), ("-1", "1"), [0, 1, 1, 0]),
        (np.array([1, 2, 3, 3], np.uint8), ("1", "2", "3"), [0, 1, 2, 2]),
        (np.array([1, 2.0, 4, 2]), ("1", "2", "4"), [0, 1, 2, 1]),
        (np.array([2**64 - 1, 0, 0, 0], np.uint64), ("0", "18446744073709551615"), [1, 0, 0, 0]),
        (np.array([0, 2**40, 0, 0], ">i8"), ("0", "1099511627776"), [0, 1, 0, 0]),
        (np.array([True, False, True, True]), ("0", "1"), [1, 0, 1, 1]),
        (np.array(["dog", "cat", "eel", "cat"]), ("cat", "dog", "eel"), [1, 0, 2, 0]),
        (np.array([b"dog", b"cat", b"dog", b"cat"]), ("cat", "dog"), [1, 0, 1, 0]),
        (np.array(["10", "9", "9", "9"]), ("9", "10"), [1, 0, 0, 0]),
    ],
)
def test_the_classes_are_the_labels_that_there_are(
    tmp_path: Path, given: np.ndarray, names: tuple[str, ...], classes: list[int]
) -> None:
    data_set = read_npz(written(tmp_path, x=np.zeros((4, 2)), y=given))

    assert data_set.class_names == names
    assert data_set.train.y.tolist() == classes


def test_labels_that_are_mapped_are_said_in_one_note(tmp_path: Path) -> None:
    path = written(tmp_path, x=np.zeros((3, 2)), y=np.array([0, 7, 900_000]))

    assert read_npz(path).notes == (f"{path}: the labels 0, 7, 900000 are the model's classes 0 to 2",)


def test_a_label_that_training_lacks_is_a_class_and_is_said(tmp_path: Path) -> None:
    x = np.zeros((2, 2))
    path = written(tmp_path, x_train=x, y_train=labels(2), x_test=x, y_test=np.array([1, 2]))

    data_set = read_npz(path)

    assert data_set.class_names == ("0", "1", "2")
    assert data_set.notes == (f"{path}: no training example of 2, which the test data hold",)


def test_one_class_alone_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, x=np.zeros((2, 2)), y=np.zeros(2, int))

    assert "there is nothing to tell apart" in read_npz(path).notes[0]


def test_a_clients_file_has_the_runs_classes(tmp_path: Path) -> None:
    path = written(tmp_path, x=np.zeros((2, 2)), y=np.array([3, 1]))

    assert read_npz(path, ("1", "2", "3")).train.y.tolist() == [2, 0]
    with pytest.raises(
        BadInput, match=r"label 3 is no class of the run, which has 1, 2; data\.classes can name"
    ):
        read_npz(path, ("1", "2"))


def test_without_test_arrays_there_is_no_test(tmp_path: Path) -> None:
    assert read_npz(written(tmp_path, x=np.zeros((3, 2)), y=labels(3))).test is None


def test_labels_may_be_of_any_integer_type(tmp_path: Path) -> None:
    data_set = read_npz(written(tmp_path, x=np.zeros((2, 2)), y=labels(2).astype(np.uint8)))

    assert data_set.train.y.dtype == torch.int64


ONE, TWO = np.zeros((1, 2)), np.zeros((2, 2))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "holds nothing; wanted x_train and y_train"),
        ({"data": TWO, "labels": labels(2)}, "holds data, labels; wanted x_train and y_train"),
        ({"x": TWO}, "holds x; wanted x_train"),
        ({"x": TWO, "y": labels(2), "x_test": ONE}, "and x_test together with y_test"),
        ({"x": TWO, "y": labels(3)}, r"x is float64 of shape \(2, 2\) but there are 3 labels in y"),
        ({"x": np.float64(1), "y": labels(3)}, r"x is float64 of shape \(\) but there are 3 labels"),
        ({"x": TWO, "y": np.zeros((2, 1), int)}, r"y is int64 of shape \(2, 1\); wanted one label per input"),
        (
            {"x": TWO, "y": np.zeros((2, 3), bool)},
            r"y is bool of shape \(2, 3\); .*; a project brings targets of any shape",
        ),
        (
            {"x": TWO, "y": np.array([0.0, 0.5])},
            r"y is float64 of shape \(2,\); it holds 0\.5; wanted one label",
        ),
        ({"x": TWO, "y": np.array([0.0, np.nan])}, "y is float64 .*; it holds nan; wanted one label"),
        (
            {"x": TWO, "y": np.array([1j, 2])},
            "y is complex128 .*; wanted one label per input: whole numbers or",
        ),
        ({"x": TWO[:0], "y": labels(0)}, r"y is int64 of shape \(0,\); wanted one label per input"),
        ({"x": np.zeros((2, 3, 8, 8), np.uint8), "y": labels(2)}, r"x is uint8 .*; wanted images as uint8"),
        ({"x": np.zeros((2, 8, 8), np.int64), "y": labels(2)}, r"x is int64 .*; wanted images as uint8"),
        ({"x": np.zeros(2), "y": labels(2)}, r"x is float64 of shape \(2,\); wanted images"),
        ({"x": np.array([["a"], ["b"]]), "y": labels(2)}, r"x is <U1 .*; wanted images"),
        ({"x": np.array([[1.0], [np.nan]]), "y": labels(2)}, "x holds values that are not finite"),
        ({"x": np.array([[1.0], [1e300]]), "y": labels(2)}, "not finite or too large for float32"),
        (
            {"x": np.zeros((70_000, 1)), "y": np.arange(70_000)},
            "y holds 70000 different labels; wanted at most 65536",
        ),
        ({"x": TWO[:, :0], "y": labels(2)}, r"x is float64 of shape \(2, 0\), which holds no number"),
        ({"x": np.zeros((2, 0, 4), np.uint8), "y": labels(2)}, "x is uint8 .*, which holds no number"),
        (
            {"x_train": TWO, "y_train": labels(2), "x_test": np.zeros((2, 3)), "y_test": labels(2)},
            r"shape \(2,\) for training and \(3,\) for testing; they must have the same",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(BadInput, match=message) as raised:
        read_npz(written(tmp_path, **arrays))

    assert str(raised.value).startswith(f"{tmp_path / 'data.npz'}: ")
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.npz: no such file; give the path of an npz file"):
        read_npz(tmp_path / "none.npz")


def test_objects_are_not_unpacked(tmp_path: Path) -> None:
    path = written(tmp_path, x=np.array([{"a": 1}, None], dtype=object), y=labels(2))

    with pytest.raises(
        BadInput, match=r"cannot be read as an npz file of plain arrays; write it with numpy\.savez"
    ):
        read_npz(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 broken"])
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)

    with pytest.raises(BadInput, match="cannot be read as an npz file of plain arrays"):
        read_npz(path)


def test_a_single_array_is_no_npz_file(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with path.open("wb") as file:
        np.save(file, TWO)

    with pytest.raises(BadInput, match="cannot be read as an npz file of plain arrays"):
        read_npz(path)

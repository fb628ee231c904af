from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.data.folder import read_client_folder, read_folder
from strategies.errors import BadInput


def save(path: Path, value: int | tuple[int, ...], mode: str = "L", size: tuple[int, int] = (4, 3)) -> None:
    """Write an image of one colour, 4 pixels wide and 3 high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def no_names() -> tuple[str, ...]:
    pytest.fail("class names are not wanted here")


def test_folders_with_a_split(tmp_path: Path) -> None:
    """Classes in alphabetical order: cat 0, dog 1; one image of each to train on, one dog to test."""
    save(tmp_path / "train" / "dog" / "a.png", 255)
    save(tmp_path / "train" / "cat" / "a.png", 51)
    save(tmp_path / "test" / "dog" / "a.png", 102)

    data_set = read_folder(tmp_path)

    train = data_set.train.take(np.arange(2))
    assert data_set.class_names == ("cat", "dog")
    assert data_set.input_shape == (1, 3, 4)
    assert train.y.tolist() == [0, 1]
    assert train.x[:, 0, 0, 0].tolist() == pytest.approx([51 / 255, 1.0])
    assert data_set.test is not None
    test = data_set.test.take(np.arange(1))
    assert test.y.tolist() == [1]
    assert test.x[0, 0, 0, 0].item() == pytest.approx(102 / 255)


@pytest.mark.parametrize(
    ("folders", "has_test"), [(["train"], False), (["train", "val"], True), ([""], False)]
)
def test_which_folder_is_the_test(tmp_path: Path, folders: list[str], has_test: bool) -> None:
    for folder in folders:
        save(tmp_path / folder / "0" / "a.png", 0)

    assert (read_folder(tmp_path).test is not None) == has_test


def test_numbered_folders_are_labels_in_the_order_of_numbers(tmp_path: Path) -> None:
    """Alphabetically 10 would come before 2."""
    for label in range(11):
        save(tmp_path / str(label) / "a.png", label)

    data_set = read_folder(tmp_path)

    assert data_set.class_names == tuple(str(label) for label in range(11))
    assert data_set.train.x[:, 0, 0, 0].tolist() == data_set.train.y.tolist()


@pytest.mark.parametrize(
    ("colours", "expected"),
    [
        ([("L", 7)], [7]),
        ([("1", 1)], [255]),
        ([("RGB", (1, 2, 3))], [1, 2, 3]),
        ([("RGBA", (1, 2, 3, 255))], [1, 2, 3]),
        ([("L", 7), ("RGB", (1, 2, 3))], [7, 7, 7]),
    ],
)
def test_images_are_grey_only_if_all_are(
    tmp_path: Path, colours: list[tuple[str, int | tuple[int, ...]]], expected: list[int]
) -> None:
    for i, (mode, value) in enumerate(colours):
        save(tmp_path / "a" / f"{i}.png", value, mode)

    assert read_folder(tmp_path).train.x[0, :, 0, 0].tolist() == expected


def test_images_are_found_in_folders_below_and_other_files_are_left_alone(tmp_path: Path) -> None:
    save(tmp_path / "a" / "b" / "c.PNG", 0)
    save(tmp_path / "a" / "d.jpg", 0)
    (tmp_path / "a" / "notes.txt").write_text("none")
    (tmp_path / ".cache").mkdir()

    data_set = read_folder(tmp_path)

    assert data_set.class_names == ("a",)
    assert len(data_set.train) == 2


def test_a_client_labels_its_images_as_the_federation_does(tmp_path: Path) -> None:
    """It has only dogs, which are class 1 of cat, dog, eel; by its own alphabet they would be class 0."""
    save(tmp_path / "dog" / "a.png", 0)

    assert read_client_folder(tmp_path, lambda: ("cat", "dog", "eel")).y.tolist() == [1]


def test_a_clients_numbered_folders_need_no_names(tmp_path: Path) -> None:
    save(tmp_path / "7" / "a.png", 0)
    save(tmp_path / "03" / "a.png", 0)

    assert sorted(read_client_folder(tmp_path, no_names).y.tolist()) == [3, 7]


def test_a_client_trains_on_its_training_folder(tmp_path: Path) -> None:
    save(tmp_path / "train" / "1" / "a.png", 0)
    save(tmp_path / "test" / "2" / "a.png", 0)

    assert read_client_folder(tmp_path, no_names).y.tolist() == [1]


def test_a_clients_unknown_class_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "fox" / "a.png", 0)

    with pytest.raises(BadInput, match=r"fox: no such class; the classes are cat, dog$"):
        read_client_folder(tmp_path, lambda: ("cat", "dog"))


def test_a_class_only_in_the_test_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "train" / "cat" / "a.png", 0)
    save(tmp_path / "val" / "fox" / "a.png", 0)

    with pytest.raises(BadInput, match=r"fox: no such class; the classes are cat$"):
        read_folder(tmp_path)


def test_a_gap_in_the_labels_is_refused(tmp_path: Path) -> None:
    for label in (0, 2):
        save(tmp_path / str(label) / "a.png", 0)

    with pytest.raises(
        BadInput, match="class folders are numbered 0, 2; wanted 0 to 1 without a gap, or names"
    ):
        read_folder(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="none: no such folder; give the path of a folder of images"):
        read_folder(tmp_path / "none")


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 0)

    with pytest.raises(BadInput, match="has no folders in it; wanted one folder of images per class"):
        read_folder(tmp_path)


def test_class_folders_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    with pytest.raises(BadInput, match=r"has no images in its class folders; wanted \.bmp, "):
        read_folder(tmp_path)


def test_sizes_that_differ_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a" / "a.png", 0)
    save(tmp_path / "a" / "b.png", 0, size=(5, 5))

    with pytest.raises(
        BadInput, match=r"differ in size \(4×3, as .*a\.png; 5×5, as .*b\.png\); resize them to one"
    ):
        read_folder(tmp_path)


def test_a_broken_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.png").write_bytes(b"no image")

    with pytest.raises(BadInput, match=r"a\.png: cannot be read as an image; replace or remove it"):
        read_folder(tmp_path)


def test_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a" / "a.png", 1000, "I;16")

    with pytest.raises(BadInput, match=r"a\.png: has more than 8 bits a pixel"):
        read_folder(tmp_path)

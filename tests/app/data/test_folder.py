from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.data.folder import read_client_folder, read_folder
from app.data.pool import numbered
from strategies.core.errors import BadInput


def save(path: Path, value: int | tuple[int, ...], mode: str = "L", size: tuple[int, int] = (4, 3)) -> None:
    """Write an image of one colour, 4 pixels wide and 3 high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def photo(path: Path, orientation: int, file_type: str = "JPEG") -> None:
    """Write a photo of which the left half is white, stored as a camera held in another way stores it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    upright = Image.new("L", (16, 8))
    upright.paste(255, (0, 0, 8, 8))
    stored = upright if orientation == 1 else upright.transpose(_TURNED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(path, file_type, exif=exif, **({"quality": 95} if file_type == "JPEG" else {}))


_TURNED = {  # What undoes each orientation of EXIF 2.3, table 4.6.4 A
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


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
        ([("LA", (7, 255))], [7]),
        ([("P", 0)], [0, 0, 0]),
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

    assert read_client_folder(tmp_path, ("cat", "dog", "eel"))[0].y.tolist() == [1]


def test_a_clients_numbered_folders_need_no_names(tmp_path: Path) -> None:
    save(tmp_path / "7" / "a.png", 0)
    save(tmp_path / "03" / "a.png", 0)

    assert sorted(read_client_folder(tmp_path, numbered(10))[0].y.tolist()) == [3, 7]


def test_a_client_trains_on_its_training_folder_and_is_measured_on_the_other(tmp_path: Path) -> None:
    save(tmp_path / "train" / "1" / "a.png", 0)
    save(tmp_path / "test" / "2" / "a.png", 0)

    train, test = read_client_folder(tmp_path, numbered(10))
    assert (train.y.tolist(), test and test.y.tolist()) == ([1], [2])


def test_a_clients_unknown_class_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "fox" / "a.png", 0)

    with pytest.raises(
        BadInput, match=r"label fox is no class of the run, which has cat, dog; data\.classes"
    ):
        read_client_folder(tmp_path, ("cat", "dog"))


def test_a_client_may_hold_one_of_several_kinds_of_a_class(tmp_path: Path) -> None:
    save(tmp_path / "30" / "a.png", 0)

    assert read_client_folder(tmp_path, ("3", "4+30"))[0].y.tolist() == [1]


def test_a_class_only_in_the_test_is_one_and_is_said(tmp_path: Path) -> None:
    save(tmp_path / "train" / "cat" / "a.png", 0)
    save(tmp_path / "val" / "fox" / "a.png", 0)

    data_set = read_folder(tmp_path)

    assert data_set.class_names == ("cat", "fox")
    assert f"{tmp_path}: no training example of fox, which the test data hold" in data_set.notes


def test_labels_with_a_gap_are_mapped_and_said(tmp_path: Path) -> None:
    for label in (-1, 2, 10):
        save(tmp_path / str(label) / "a.png", label + 1)

    data_set = read_folder(tmp_path)

    assert data_set.class_names == ("-1", "2", "10")
    assert data_set.train.y.tolist() == [0, 1, 2]
    assert data_set.train.x[:, 0, 0, 0].tolist() == [0, 3, 11]
    assert data_set.notes == (f"{tmp_path}: the labels -1, 2, 10 are the model's classes 0 to 2",)


def test_an_empty_class_folder_is_no_class(tmp_path: Path) -> None:
    save(tmp_path / "train" / "cat" / "a.png", 0)
    save(tmp_path / "train" / "dog" / "a.png", 0)
    (tmp_path / "train" / "owl").mkdir()

    data_set = read_folder(tmp_path)

    assert data_set.class_names == ("cat", "dog")
    assert data_set.notes == (f"{tmp_path}: no image in {tmp_path / 'train' / 'owl'}",)


@pytest.mark.parametrize("file_type", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(tmp_path: Path, orientation: int, file_type: str) -> None:
    photo(tmp_path / "a" / f"a.{file_type.lower()}", orientation, file_type)

    image = read_folder(tmp_path).train.x[0].float().mean(dim=0)

    assert image.shape == (8, 16)
    assert float(image[:, :6].min()) > 200
    assert float(image[:, 10:].max()) < 50


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", "jpg"), ("P", "png"), ("RGBA", "png"), ("LA", "png")])
def test_other_ways_to_store_colours_become_red_green_and_blue(
    mode: str, suffix: str, tmp_path: Path
) -> None:
    """A red image beside a red one in RGB: the same numbers but for JPEG; grey stays one channel."""
    colour = "gray" if mode == "LA" else "red"
    (tmp_path / "a").mkdir()
    Image.new("RGB" if mode != "LA" else "L", (8, 8), colour).save(tmp_path / "a" / "a.png")
    Image.new("RGB", (8, 8), colour).convert(mode).save(tmp_path / "a" / f"b.{suffix}")
    first, second = read_folder(tmp_path).train.x.float()
    assert first.shape[0] == (1 if mode == "LA" else 3)
    assert float((first - second).abs().max()) < 8


@pytest.mark.parametrize("name", ["test", "Test", "val", "valid", "validation"])
def test_folders_that_hold_test_data(tmp_path: Path, name: str) -> None:
    save(tmp_path / "train" / "0" / "a.png", 1)
    save(tmp_path / name / "0" / "a.png", 2)

    data_set = read_folder(tmp_path)

    assert data_set.test is not None
    assert data_set.test.x.unique().tolist() == [2]


def test_what_is_ignored_beside_the_training_data_is_named(tmp_path: Path) -> None:
    for folder in ("train", "test", "val", "extra"):
        save(tmp_path / folder / "0" / "a.png", 1)
    (tmp_path / "labels.csv").write_text("a")
    (tmp_path / ".git").mkdir()

    (note,) = (note for note in read_folder(tmp_path).notes if ": ignored " in note)

    assert note == f"{tmp_path}: ignored beside train/ and test/: extra, labels.csv, val"


def test_what_systems_leave_behind_is_skipped_and_counted(tmp_path: Path) -> None:
    save(tmp_path / "train" / "0" / "a.png", 1)
    save(tmp_path / "train" / "0" / ".cache" / "deep" / "b.png", 2)
    save(tmp_path / "train" / "0" / "__MACOSX" / "c.png", 2)
    save(tmp_path / "train" / ".hidden" / "d.png", 2)
    save(tmp_path / "__MACOSX" / "train" / "0" / "e.png", 2)
    for name in ("._a.png", "Thumbs.db", "desktop.ini", ".DS_Store"):
        (tmp_path / "train" / "0" / name).write_bytes(b"no image")
    (tmp_path / "train" / "0" / "notes.txt").write_text("no image")

    data_set = read_folder(tmp_path)

    assert data_set.class_names == ("0",)
    assert data_set.train.x.unique().tolist() == [1]
    assert any(
        "skipped 6 files, hidden or a system's (train/0/.DS_Store, " in note for note in data_set.notes
    )
    assert f"{tmp_path}: skipped 1 file, no image (train/0/notes.txt)" in data_set.notes


def test_a_folder_that_was_packed_with_its_name_is_refused_with_the_right_one(tmp_path: Path) -> None:
    save(tmp_path / "scans" / "train" / "0" / "a.png", 1)
    (tmp_path / "__MACOSX").mkdir()

    with pytest.raises(BadInput, match=r"holds one folder, which is a data set itself; give .*scans$"):
        read_folder(tmp_path)


def test_images_of_several_sizes_are_scaled_where_a_size_is_given(tmp_path: Path) -> None:
    save(tmp_path / "a" / "a.png", 7)
    save(tmp_path / "a" / "b.png", (7, 7, 9), "RGB", size=(5, 5))

    data_set = read_folder(tmp_path, size=8)

    assert data_set.input_shape == (3, 8, 8)
    assert data_set.train.x[:, :, 0, 0].tolist() == [[7, 7, 7], [7, 7, 9]]
    assert data_set.notes == (
        f"{tmp_path}: all examples are of one class, a: there is nothing to tell apart",
        "images of 2 sizes were scaled to 8×8; 1 of 2 were not square and are stretched; crop or pad them "
        "first to keep their proportions",
    )


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
        BadInput, match=r"differ in size \(4×3, as .*a\.png; 5×5, as .*b\.png\); give data\.size, which"
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

import csv
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits

from app.config.settings import DataSettings
from app.data.pool import DataSet
from app.data.reading import Reading
from app.data.sources import open_data_set
from strategies.core.errors import BadInput, LetheError

SHARED_DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def opened(name: str, root: Path | str = "", download: bool = False) -> DataSet:
    return open_data_set(name, Reading(str(root), download))


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write bytes in MNIST's format: a magic number with the number of axes, their lengths, the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">{1 + array.ndim}i", 0x800 + array.ndim, *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: object) -> list[dict[str, object]]:
    """Replace a class of torchvision's, which would check its files' hashes; return its calls' arguments."""
    calls: list[dict[str, object]] = []

    def make(root: Path, **options: object) -> SimpleNamespace:
        calls.append({"root": root, **options})
        return SimpleNamespace(**attributes)

    monkeypatch.setattr(torchvision.datasets, name, make)
    return calls


def test_digits_are_scikit_learns() -> None:
    """Its own loader, scaled from 0 … 16 to [0, 1]."""
    expected = load_digits()

    data_set = opened("digits")

    examples = data_set.train.take(np.arange(1797))
    assert torch.equal(examples.x, torch.from_numpy(expected.images).float().unsqueeze(1) / 16)
    assert examples.y.tolist() == expected.target.tolist()
    assert data_set.input_shape == (1, 8, 8)
    assert data_set.class_names == tuple("0123456789")
    assert data_set.test is None
    assert examples.x.max() == 1


@pytest.mark.skipif(not (SHARED_DATA / "MNIST").is_dir(), reason=f"needs MNIST in {SHARED_DATA}")
def test_mnist() -> None:
    """60,000 and 10,000 images; the first training images show 5, 0, 4, 1, 9 (as on the data set's page)."""
    data_set = opened("MNIST", SHARED_DATA)

    first = data_set.train.take(np.arange(5))
    assert first.y.tolist() == [5, 0, 4, 1, 9]
    assert (first.x.min(), first.x.max()) == (0, 1)
    assert data_set.input_shape == (1, 28, 28)
    assert data_set.test is not None
    assert (len(data_set.train), len(data_set.test)) == (60_000, 10_000)


@pytest.mark.parametrize("name", ["FashionMNIST", "fashion-mnist", "FASHION_MNIST"])
def test_case_and_hyphens_do_not_matter(tmp_path: Path, name: str) -> None:
    for part in ("train", "t10k"):
        raw = tmp_path / "FashionMNIST" / "raw"
        write_idx(raw / f"{part}-images-idx3-ubyte", np.full((1, 28, 28), 255))
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.array([9]))

    data_set = opened(name, tmp_path)

    assert data_set.name == "fashionmnist"
    assert data_set.class_names[9] == "Ankle boot"
    assert data_set.train.y.tolist() == [9]


def test_emnist_is_its_letters_upright_from_zero(tmp_path: Path) -> None:
    """Stored are columns before rows, and labels 1 … 26."""
    image = np.zeros((1, 28, 28))
    image[0, 3, 20] = 255
    for part in ("train", "test"):
        raw = tmp_path / "EMNIST" / "raw"
        write_idx(raw / f"emnist-letters-{part}-images-idx3-ubyte", image)
        write_idx(raw / f"emnist-letters-{part}-labels-idx1-ubyte", np.array([26]))

    data_set = opened("emnist", tmp_path)

    assert data_set.train.x[0].nonzero().tolist() == [[0, 20, 3]]
    assert data_set.train.y.tolist() == [25]
    assert data_set.class_names[25] == "z"
    assert len(data_set.class_names) == 26


def test_gtsrb_is_scaled_to_32_pixels(tmp_path: Path) -> None:
    """Training images stand in folders by class; test images in one, with a table of labels."""
    folder = tmp_path / "gtsrb"
    train, test = folder / "GTSRB" / "Training" / "00000", folder / "GTSRB" / "Final_Test" / "Images"
    for place in (train, test):
        place.mkdir(parents=True)
        Image.new("RGB", (60, 48), (255, 0, 51)).save(place / "00000.ppm")
    with (folder / "GT-final_test.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["Filename", "ClassId"], ["00000.ppm", "42"]])

    data_set = opened("gtsrb", tmp_path)

    assert data_set.input_shape == (3, 32, 32)
    assert data_set.train.x[0, :, 5, 5].tolist() == [255, 0, 51]
    assert data_set.test is not None
    assert data_set.test.y.tolist() == [42]
    assert len(data_set.class_names) == 43


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_cifar_becomes_channels_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    pixels = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    pixels[1, 4, 5, 2] = 9
    calls = stand_in(monkeypatch, name, data=pixels, targets=[1, 0], classes=["plane", "car"])

    data_set = opened(name, tmp_path)

    assert data_set.train.x[1, 2, 4, 5] == 9
    assert data_set.train.y.tolist() == [1, 0]
    assert data_set.class_names == ("plane", "car")
    assert [call["train"] for call in calls] == [True, False]


def test_svhn_is_channels_first_already(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 32, 32), dtype=np.uint8)
    calls = stand_in(monkeypatch, "SVHN", data=pixels, labels=np.array([7, 0]))

    data_set = opened("svhn", tmp_path)

    assert data_set.input_shape == (3, 32, 32)
    assert data_set.train.y.tolist() == [7, 0]
    assert [call["split"] for call in calls] == ["train", "test"]


def test_kmnist_is_opened_without_download_in_the_given_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pixels = torch.zeros(1, 28, 28, dtype=torch.uint8)
    calls = stand_in(
        monkeypatch, "KMNIST", data=pixels, targets=torch.tensor([3]), classes=list("okstnhmyrw")
    )

    opened("kmnist", tmp_path)

    assert [(call["root"], call["download"]) for call in calls] == [(tmp_path, False)] * 2


def test_the_users_own_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "table.npz", x=np.zeros((2, 3)), y=np.array([0, 1]))
    (tmp_path / "Images" / "a").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "Images" / "a" / "0.png")

    assert opened(f"npz:{tmp_path / 'table.npz'}").input_shape == (3,)
    assert opened(f"Folder:{tmp_path / 'Images'}").input_shape == (1, 8, 8)


def test_the_users_home_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "table.npz", x=np.zeros((2, 3)), y=np.array([0, 1]))

    assert len(opened("npz:~/table.npz").train) == 2


def test_a_data_set_is_loaded_once_whatever_its_spelling() -> None:
    assert opened("digits") is opened("Digits")


@pytest.mark.parametrize(
    "name", ["mnist", "FashionMNIST", "kmnist", "emnist", "cifar10", "cifar100", "svhn", "gtsrb"]
)
def test_missing_files_are_refused_and_nothing_is_fetched(tmp_path: Path, name: str) -> None:
    message = rf"^data\.root: no complete '{name.lower()}' under .*; set it to .*, or data\.download = true"

    with pytest.raises(BadInput, match=message):
        opened(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_root_the_users_folder_is_looked_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(BadInput, match=rf"under {tmp_path}/\.lethe/data;"):
        opened("svhn")


def test_a_failed_download_is_no_fault_of_the_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(root: Path, **options: object) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(torchvision.datasets, "SVHN", fail)

    with pytest.raises(LetheError, match=r"could not fetch 'svhn' to .*: no route to host$") as raised:
        opened("svhn", tmp_path, download=True)
    assert not isinstance(raised.value, BadInput)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("minst", "; did you mean 'mnist'"),
        ("cifar-1O", "; did you mean 'cifar10'"),
        ("imagenet", "; allowed digits, mnist, "),
        ("npz:", "; allowed digits, mnist, "),
        ("zip:x", r"; allowed .*, folder:<folder>, npz:, csv: or parquet:<file>$"),
    ],
)
def test_an_unknown_name_is_refused(name: str, suggestion: str) -> None:
    with pytest.raises(BadInput, match=rf"^data\.name: unknown data set '{name}'{suggestion}"):
        opened(name)


def test_the_default_data_set_needs_nothing() -> None:
    settings = DataSettings()

    assert len(open_data_set(settings.name, Reading.of(settings)).train) == 1797

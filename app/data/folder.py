"""A user's own data in a folder of images, one folder per class, as torchvision's ImageFolder reads it.

The class folders stand in ``train/`` beside ``test/`` or ``val/``; or in the folder itself, which then has
no split. Folders named by numbers are their labels. Other names are labelled in alphabetical order; a
client's own folder, which may lack some classes, is labelled by the names of the federation's classes.
Images are grey if all of them are, else RGB, and all have one size; they are scaled to [0, 1].
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from app.data.pool import DataSet, Pool, channels_first
from strategies.errors import BadInput

_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_GREY_MODES = frozenset({"1", "L"})
_DEEP_MODES = ("I", "F")


def read_folder(path: Path) -> DataSet:
    """Read a data set.

    Raises
    ------
    BadInput
        If there is no such folder, it has no class folders, they are numbered but not from 0 without a gap,
        the test folder has a class that the training folder has not, or the images cannot be read as
        described.
    """
    train_folder, test_folder = _split_folders(path)
    names = _class_folders(train_folder)
    if _are_labels(names) and [int(name) for name in names] != list(range(len(names))):
        wanted = f"0 to {len(names) - 1} without a gap, or names"
        raise BadInput(f"{train_folder}: class folders are numbered {', '.join(names)}; wanted {wanted}")
    labels = {name: label for label, name in enumerate(names)}
    folders = [train_folder] if test_folder is None else [train_folder, test_folder]
    train, *test = _read_pools([_labelled_files(folder, labels) for folder in folders])
    return DataSet(f"folder:{path}", train, test[0] if test else None, tuple(names))


def read_client_folder(path: Path, class_names: Callable[[], Sequence[str]]) -> Pool:
    """Read a client's own training images, labelled as the federation labels them.

    Parameters
    ----------
    path
        The folder; ``test/`` and ``val/`` in it are left alone.
    class_names
        Returns the names of the federation's classes in the order of their labels. It is called only where
        the class folders are not named by labels.

    Raises
    ------
    BadInput
        If there is no such folder, it has no class folders, a name is no class of the federation, or the
        images cannot be read as described.
    """
    folder, _ = _split_folders(path)
    names = _class_folders(folder)
    if _are_labels(names):
        labels = {name: int(name) for name in names}
    else:
        labels = {name: label for label, name in enumerate(class_names())}
    return _read_pools([_labelled_files(folder, labels)])[0]


def _split_folders(path: Path) -> tuple[Path, Path | None]:
    if not path.is_dir():
        raise BadInput(f"{path}: no such folder; give the path of a folder of images on this machine")
    if not (path / "train").is_dir():
        return path, None
    return path / "train", next((path / name for name in ("test", "val") if (path / name).is_dir()), None)


def _class_folders(folder: Path) -> list[str]:
    """Return the names of the class folders, by number if they are labels, else alphabetically."""
    names = [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    if not names:
        raise BadInput(f"{folder}: has no folders in it; wanted one folder of images per class")
    return sorted(names, key=int) if _are_labels(names) else sorted(names)


def _are_labels(names: Sequence[str]) -> bool:
    return all(name.isdecimal() for name in names)


def _labelled_files(folder: Path, labels: Mapping[str, int]) -> list[tuple[Path, int]]:
    files = []
    for name in _class_folders(folder):
        if name not in labels:
            raise BadInput(f"{folder / name}: no such class; the classes are {', '.join(labels)}")
        files += [
            (file, labels[name])
            for file in sorted((folder / name).rglob("*"))
            if file.suffix.lower() in _SUFFIXES
        ]
    if not files:
        raise BadInput(f"{folder}: has no images in its class folders; wanted {', '.join(sorted(_SUFFIXES))}")
    return files


def _read_pools(parts: Sequence[Sequence[tuple[Path, int]]]) -> list[Pool]:
    """Read the parts of one data set together, for they are all grey or all RGB."""
    images = _read_images([file for part in parts for file, _ in part])
    labels = np.array([label for part in parts for _, label in part], dtype=np.int64)
    ends = np.cumsum([len(part) for part in parts])[:-1]
    pairs = zip(np.split(images, ends), np.split(labels, ends), strict=True)
    return [Pool(channels_first(x), torch.from_numpy(y)) for x, y in pairs]


def _read_images(files: Sequence[Path]) -> np.ndarray:
    """Return [n, height, width] where all images are grey, else [n, height, width, 3], uint8."""
    images = [_read_image(file) for file in files]
    shapes = {image.shape[:2]: file for image, file in zip(images, files, strict=True)}
    if len(shapes) > 1:
        sizes = "; ".join(
            f"{width}×{height}, as {file}" for (height, width), file in sorted(shapes.items())[:2]
        )
        raise BadInput(f"images differ in size ({sizes}); resize them to one")
    return np.stack(images if all(image.ndim == 2 for image in images) else list(_all_coloured(images)))


def _read_image(file: Path) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            if image.mode.startswith(_DEEP_MODES):
                raise BadInput(
                    f"{file}: has more than 8 bits a pixel, which would be cut off; convert it first"
                )
            return np.asarray(image.convert("L" if image.mode in _GREY_MODES else "RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise BadInput(f"{file}: cannot be read as an image; replace or remove it") from error


def _all_coloured(images: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    return (np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image for image in images)

"""A user's own data in a folder of images, one folder per class, as torchvision's ImageFolder reads it.

The class folders stand in ``train/`` beside a test folder, ``test/`` or one of ``val/``, ``valid/`` and
``validation/``; or in the folder itself, which then has no split. Classes are numbered in alphabetical order,
or by number where all folders are named by numbers; a client's own folder, which may lack some classes, is
labelled by the names of the federation's classes. Images are turned upright as their EXIF data say. They are
grey if all of them are, else RGB, and all have one size; they are scaled to [0, 1]. What is hidden, and what
systems leave behind, is skipped (`app.data.images`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from app.config.settings import plain_label
from app.data.images import SUFFIXES, Found, Headers, ImageFiles, find_images, is_litter, read_images
from app.data.labels import UnknownLabels, classes_by_name, notes_on, some, sorted_names
from app.data.pool import DataSet, Pixels, Pool, channels_first
from strategies.core.errors import BadInput

Lazy = Literal["auto", "true", "false"]
MOST_IN_MEMORY = 1 << 28
"""Bytes of pixels up to which all images of a folder are in memory; as floats they take four times that."""
_SURELY_SMALL = 1 << 22
"""Bytes of files up to which their headers need not be read to know that."""
_TRAIN = ("train", "training")
_TEST = ("test", "val", "valid", "validation")
"""The first that is there is the test data; another is named in a note."""


def read_folder(path: Path, size: int = 0, lazy: Lazy = "auto") -> DataSet:
    """Read a data set.

    Images that differ in size are scaled to squares with side `size`; with 0 they are refused. `lazy` says
    whether images are decoded when a batch is asked for: ``auto``, if they take more than `MOST_IN_MEMORY`.

    Raises
    ------
    BadInput
        If there is no such folder, it has no class folders, or the images cannot be read as described.
    """
    parts = _Parts.of(path)
    found = {part: _images_of_classes(part) for part in parts.both}
    names = sorted_names({name for classes in found.values() for name, images in classes.items() if images})
    known = {name: label for label, name in enumerate(names)}
    files = [_labelled(classes, known) for classes in found.values()]
    pools, notes = _read_pools(files, size, lazy)
    seen = Found.joined(images for classes in found.values() for images in classes.values())
    empty = [str(part / name) for part, classes in found.items() for name in classes if not classes[name]]
    without = [f"{path}: no image in {some(empty)}"] if empty else []
    labels = notes_on(str(path), names, pools[0].y.tolist())
    return DataSet(
        f"folder:{path}",
        pools[0],
        pools[1] if parts.test else None,
        names,
        (*parts.notes, *without, *seen.notes(path), *labels, *notes),
    )


def read_client_folder(
    path: Path, class_names: Sequence[str], size: int = 0, lazy: Lazy = "auto"
) -> tuple[Pool, Pool | None]:
    """Read a client's own training and test images, labelled by the names of the federation's classes.

    `size` and `lazy` are as in `read_folder`.

    Raises
    ------
    BadInput
        If there is no such folder, it has no class folders, a name is no class of the federation, or the
        images cannot be read as described.
    """
    parts = _Parts.of(path)
    files = [_client_files(part, class_names) for part in parts.both]
    pools, _ = _read_pools(files, size, lazy)
    return pools[0], pools[1] if parts.test else None


def _client_files(folder: Path, class_names: Sequence[str]) -> list[tuple[Path, int]]:
    found = {name: images for name, images in _images_of_classes(folder).items() if images}
    known = _client_labels(class_names)
    labels = {name: label for name in found if (label := known.get(plain_label(name))) is not None}
    if unknown := [name for name in found if name not in labels]:
        raise UnknownLabels(unknown, class_names, folder)
    return _labelled(found, labels)


def _client_labels(class_names: Sequence[str]) -> dict[str, int]:
    return {plain_label(name): label for name, label in classes_by_name(class_names).items()}


def class_folders(path: Path) -> set[str]:
    """Return the names of the classes of which a folder holds images; raises as `read_folder` does."""
    found = [_images_of_classes(part) for part in _Parts.of(path).both]
    return {name for classes in found for name, images in classes.items() if images}


def image_shape(paths: Sequence[Path], size: int) -> tuple[int, int, int]:
    """Return (channels, height, width) of the images of several folders together, from their headers.

    Raises
    ------
    BadInput
        If they differ in size and no size is given, or some are grey and others not.
    """
    shapes = {}
    for path in paths:
        found = [_images_of_classes(part) for part in _Parts.of(path).both]
        files = [file for classes in found for images in classes.values() for file in images.files]
        channels, height, width = Headers.of(files).shape(size)
        shapes[(channels, size or height, size or width)] = path
    if len(shapes) > 1:
        (first, one), (second, other) = list(shapes.items())[:2]
        raise BadInput(f"images of {one} have shape {first} and those of {other} {second}; wanted one shape")
    return next(iter(shapes))


@dataclass(frozen=True)
class _Parts:
    """The folders that hold class folders, and notes on the others."""

    train: Path
    test: Path | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def both(self) -> list[Path]:
        return [self.train] if self.test is None else [self.train, self.test]

    @staticmethod
    def of(path: Path) -> "_Parts":
        if not path.is_dir():
            raise BadInput(f"{path}: no such folder; give the path of a folder of images on this machine")
        entries = {entry.name: entry for entry in sorted(path.iterdir()) if not is_litter(entry.name)}
        folders = {name.lower(): entry for name, entry in entries.items() if entry.is_dir()}
        train = next((folders[name] for name in _TRAIN if name in folders), None)
        if train is None:
            _refuse_nested(path, list(folders.values()))
            return _Parts(path)
        test = next((folders[name] for name in _TEST if name in folders), None)
        ignored = [name for name, entry in entries.items() if entry not in (train, test)]
        beside = f"{train.name}/" if test is None else f"{train.name}/ and {test.name}/"
        notes = [f"{path}: ignored beside {beside}: {some(ignored)}"] if ignored else []
        return _Parts(train, test, notes)


def _refuse_nested(path: Path, folders: Sequence[Path]) -> None:
    if len(folders) == 1 and any((folders[0] / name).is_dir() for name in _TRAIN):
        raise BadInput(f"{path}: holds one folder, which is a data set itself; give {folders[0]}")


def _images_of_classes(folder: Path) -> dict[str, Found]:
    """Return the content of the class folders, by their names."""
    names = [entry.name for entry in folder.iterdir() if entry.is_dir() and not is_litter(entry.name)]
    if not names:
        raise BadInput(f"{folder}: has no folders in it; wanted one folder of images per class")
    found = {name: find_images(folder / name) for name in sorted_names(names)}
    if not any(found.values()):
        raise BadInput(f"{folder}: has no images in its class folders; wanted {', '.join(sorted(SUFFIXES))}")
    return found


def _labelled(found: Mapping[str, Found], labels: Mapping[str, int]) -> list[tuple[Path, int]]:
    return [(file, labels[name]) for name, images in found.items() for file in images.files]


def _read_pools(
    parts: Sequence[Sequence[tuple[Path, int]]], size: int, lazy: Lazy
) -> tuple[list[Pool], list[str]]:
    """Read the parts of one data set together, as all are grey or all RGB; return notes as well."""
    files = [file for part in parts for file, _ in part]
    labels = torch.tensor([label for part in parts for _, label in part], dtype=torch.int64)
    counts = [len(part) for part in parts]
    pixels, notes = _pixels(files, size, lazy)
    ends = np.cumsum([0, *counts]).tolist()
    pools = [Pool(_between(pixels, start, end), labels[start:end]) for start, end in pairwise(ends)]
    return pools, notes


def _between(pixels: Tensor | Pixels, start: int, end: int) -> Tensor | Pixels:
    return pixels[start:end] if isinstance(pixels, Tensor) else pixels[torch.arange(start, end)]


def _pixels(files: Sequence[Path], size: int, lazy: Lazy) -> tuple[Tensor | Pixels, list[str]]:
    """Return the images of some files, in memory or to be decoded when they are asked for, and notes."""
    stored = sum(file.stat().st_size for file in files)
    if lazy == "true" or (lazy == "auto" and stored > _SURELY_SMALL):
        headers = Headers.of(files)
        shape = headers.shape(size)
        if lazy == "true" or len(files) * math.prod(shape) > MOST_IN_MEMORY:
            return ImageFiles(files, shape), headers.notes(size, len(files))
    images, notes = read_images(files, size)
    return channels_first(images), notes

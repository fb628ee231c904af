"""A user's own data in a folder of images, one folder per class, as torchvision's ImageFolder reads it.

The class folders stand in ``train/`` beside a test folder, ``test/`` or one of ``val/``, ``valid/`` and
``validation/``; or in the folder itself, which then has no split. Classes are numbered in alphabetical order,
or by number where all folders are named by numbers; a client's own folder, which may lack some classes, is
labelled by the names of the federation's classes. Images are turned upright as their EXIF data say. They are
grey if all of them are, else RGB, and all have one size; they are scaled to [0, 1]. What is hidden, and what
systems leave behind, is skipped (`app.data.images`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from app.config.settings import plain_label
from app.data.images import SUFFIXES, Found, find_images, is_litter, read_images
from app.data.labels import UnknownLabels, classes_by_name, notes_on, some, sorted_names
from app.data.pool import DataSet, Pool, channels_first
from strategies.core.errors import BadInput

_TRAIN = ("train", "training")
_TEST = ("test", "val", "valid", "validation")
"""The first that is there is the test data; another is named in a note."""


def read_folder(path: Path, size: int = 0) -> DataSet:
    """Read a data set.

    Images that differ in size are scaled to squares with side `size`; with 0 they are refused.

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
    pools, notes = _read_pools(files, size)
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


def read_client_folder(path: Path, class_names: Sequence[str], size: int = 0) -> Pool:
    """Read a client's own training images, labelled by the names of the federation's classes.

    A test folder in it is ignored; `size` is as in `read_folder`.

    Raises
    ------
    BadInput
        If there is no such folder, it has no class folders, a name is no class of the federation, or the
        images cannot be read as described.
    """
    train = _Parts.of(path).train
    found = {name: images for name, images in _images_of_classes(train).items() if images}
    known = _client_labels(class_names)
    labels = {name: label for name in found if (label := known.get(plain_label(name))) is not None}
    if unknown := [name for name in found if name not in labels]:
        raise UnknownLabels(unknown, class_names, train)
    return _read_pools([_labelled(found, labels)], size)[0][0]


def _client_labels(class_names: Sequence[str]) -> dict[str, int]:
    return {plain_label(name): label for name, label in classes_by_name(class_names).items()}


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


def _read_pools(parts: Sequence[Sequence[tuple[Path, int]]], size: int) -> tuple[list[Pool], list[str]]:
    """Read the parts of one data set together, as all are grey or all RGB; return notes as well."""
    images, notes = read_images([file for part in parts for file, _ in part], size)
    labels = np.array([label for part in parts for _, label in part], dtype=np.int64)
    ends = np.cumsum([len(part) for part in parts])[:-1]
    pairs = zip(np.split(images, ends), np.split(labels, ends), strict=True)
    return [Pool(channels_first(x), torch.from_numpy(y)) for x, y in pairs], notes

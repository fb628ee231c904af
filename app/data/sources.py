"""The data sets that a run can name.

``digits`` (8×8) comes with scikit-learn. torchvision's ``mnist``, ``fashion-mnist``, ``kmnist``, ``emnist``
(its letters, a to z), ``cifar10``, ``cifar100``, ``svhn`` and ``gtsrb`` (scaled to 32×32) are read from
``data.root`` and fetched only on demand. ``npz:<file>``, ``csv:<file>``, ``parquet:<file>`` and
``folder:<folder>`` are the user's own, and ``synthetic:<alpha>,<beta>`` is drawn (`app.data.synthetic`). Case
and hyphens in a name do not matter.

Pixels are scaled to [0, 1] and nothing else: a mean taken over all clients' data would have to be collected
from them first, and white stays 1.0, whatever the data set.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.data.own import OWN_KINDS, read_own
from app.data.pool import DataSet, Pool, channels_first, numbered
from app.data.reading import Reading
from app.data.synthetic import read_synthetic
from strategies.core.errors import BadInput, LetheError

DEFAULT_ROOT = "~/.lethe/data"
"""Where torchvision's data sets are looked for when ``data.root`` is empty."""

_DIGITS_WHITE = 16
_GTSRB_SIDE = 32


def open_data_set(name: str, how: Reading, key: str = "data.name") -> DataSet:
    """Load a data set, named as described above; a process keeps the two it loaded last of each kind.

    `key` is the setting that holds the name.

    Raises
    ------
    BadInput
        If the name is unknown, or the data are missing or malformed.
    LetheError
        If a download fails.
    """
    kind, place = kind_of_name(name, key), name.partition(":")[2]
    if kind in OWN_KINDS:
        return _load_own(kind, place, _of_files(how))
    if kind in _MADE:
        return _load(kind, place, "", False)
    return _load(_plain(name), "", how.root, how.download)


def kind_of_name(name: str, key: str = "data.name") -> str:
    """Return the kind of a named data set: of the user's own, made here, or ``torchvision``.

    Raises
    ------
    BadInput
        If there is none of this name.

    Examples
    --------
    >>> kind_of_name("csv:patients.csv"), kind_of_name("CIFAR-10"), kind_of_name("synthetic:1,1")
    ('csv', 'torchvision', 'synthetic')
    """
    kind, _, place = name.partition(":")
    if place and kind.lower() in OWN_KINDS:
        return kind.lower()
    if kind.lower() == "synthetic":
        return "synthetic"
    plain = _plain(name)
    if plain != "digits" and plain not in _VISION:
        raise BadInput(f"{key}: unknown data set {name!r}{_suggestion(plain)}")
    return "torchvision" if plain in _VISION else plain


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _of_files(how: Reading) -> Reading:
    """Return the same without what files of the user's own do not depend on, so that they are kept."""
    return replace(how, root="", download=False)


@lru_cache(maxsize=2)
def _load(kind: str, place: str, root: str, download: bool) -> DataSet:
    if kind in _MADE:
        return _MADE[kind](place)
    return _read_vision(kind, Path(root or DEFAULT_ROOT).expanduser(), download)


@lru_cache(maxsize=2)
def _load_own(kind: str, place: str, how: Reading) -> DataSet:
    return read_own(kind, Path(place).expanduser(), how)


def _suggestion(plain: str) -> str:
    known = ["digits", *_VISION, "synthetic"]
    near = difflib.get_close_matches(plain, known, n=1)
    allowed = f"allowed {', '.join(known)}, folder:<folder>, npz:, csv: or parquet:<file>"
    return f"; did you mean {near[0]!r}? {allowed}" if near else f"; {allowed}"


def _read_digits() -> DataSet:
    """Read what scikit-learn's load_digits reads, without the seconds that importing it takes."""
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise LetheError("data.name: 'digits' comes with scikit-learn, which is not installed")
    file = Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    table = np.loadtxt(file, delimiter=",", dtype=np.uint8)  # [1797, 64 pixels and the label]
    pixels = torch.from_numpy(table[:, :-1].astype(np.float32) / _DIGITS_WHITE).reshape(-1, 1, 8, 8)
    return DataSet(
        "digits", Pool(pixels, torch.from_numpy(table[:, -1].astype(np.int64))), None, numbered(10)
    )


@dataclass(frozen=True)
class _Vision:
    """How one of torchvision's data sets is opened and read; no class names: torchvision's own."""

    class_name: str
    read: Callable[[Any], tuple[Tensor, Any]]
    class_names: tuple[str, ...] = ()
    has_train_flag: bool = True
    options: tuple[tuple[str, str], ...] = ()

    def open(self, root: Path, train: bool, download: bool) -> Any:
        """Open torchvision's data set."""
        from torchvision import datasets

        part = {"train": train} if self.has_train_flag else {"split": "train" if train else "test"}
        return getattr(datasets, self.class_name)(root, download=download, **part, **dict(self.options))


def _read_vision(name: str, root: Path, download: bool) -> DataSet:
    vision = _VISION[name]
    try:
        train, test = (vision.open(root, train, download) for train in (True, False))
    except (RuntimeError, OSError) as error:
        if download:
            reason = " ".join(str(error).split())
            raise LetheError(f"data.download: could not fetch {name!r} to {root}: {reason}") from error
        raise BadInput(
            f"data.root: no complete {name!r} under {root}; set it to the folder that holds the data set, "
            "or data.download = true to fetch it"
        ) from error
    return DataSet(
        name, _pool(vision, train), _pool(vision, test), vision.class_names or tuple(train.classes)
    )


def _pool(vision: _Vision, opened: Any) -> Pool:
    pixels, labels = vision.read(opened)
    return Pool(pixels, torch.as_tensor(labels, dtype=torch.int64))


def _read_grey(opened: Any) -> tuple[Tensor, Any]:
    return opened.data.unsqueeze(1), opened.targets


def _read_letters(opened: Any) -> tuple[Tensor, Any]:
    """Turn EMNIST's images upright, which are stored transposed, and count its letters from 0."""
    return opened.data.transpose(1, 2).unsqueeze(1), opened.targets - 1


def _read_coloured(opened: Any) -> tuple[Tensor, Any]:
    return channels_first(opened.data), opened.targets


def _read_svhn(opened: Any) -> tuple[Tensor, Any]:
    return torch.from_numpy(opened.data), opened.labels


def _read_signs(opened: Any) -> tuple[Tensor, Any]:
    images = np.empty((len(opened), _GTSRB_SIDE, _GTSRB_SIDE, 3), dtype=np.uint8)
    labels = np.empty(len(opened), dtype=np.int64)
    for i in range(len(opened)):
        image, labels[i] = opened[i]
        images[i] = np.asarray(image.resize((_GTSRB_SIDE, _GTSRB_SIDE)))
    return channels_first(images), labels


_VISION = {
    "mnist": _Vision("MNIST", _read_grey, numbered(10)),
    "fashionmnist": _Vision("FashionMNIST", _read_grey),
    "kmnist": _Vision("KMNIST", _read_grey),
    "emnist": _Vision("EMNIST", _read_letters, tuple(ascii_lowercase), options=(("split", "letters"),)),
    "cifar10": _Vision("CIFAR10", _read_coloured),
    "cifar100": _Vision("CIFAR100", _read_coloured),
    "svhn": _Vision("SVHN", _read_svhn, numbered(10), has_train_flag=False),
    "gtsrb": _Vision("GTSRB", _read_signs, numbered(43), has_train_flag=False),
}
_MADE: dict[str, Callable[[str], DataSet]] = {
    "digits": lambda place: _read_digits(),
    "synthetic": read_synthetic,
}

"""The files that a data set was read from: where they lie, and whether they have changed."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.data.images import is_litter
from app.data.own import OWN_KINDS
from strategies.core.errors import BadInput

_BLOCK = 1 << 20


def own_place(name: str) -> Path | None:
    """Return the file or folder that a data set's name gives, absolute; None for a built-in data set.

    >>> own_place("npz:/data/a.npz").as_posix(), own_place("digits")
    ('/data/a.npz', None)
    """
    kind, _, place = name.partition(":")
    return Path(place).expanduser().absolute() if place and kind.lower() in OWN_KINDS else None


def placed(name: str) -> str:
    """Return a data set's name with an absolute path, so that it means the same from any folder."""
    place = own_place(name)
    return name if place is None else f"{name.partition(':')[0].lower()}:{place}"


def identity(place: Path) -> dict[str, Any]:
    """Return a file's or folder's path, size in bytes and SHA-256; hidden files do not count.

    Raises
    ------
    BadInput
        If it is not there, or cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    try:
        for file in _files(place):
            digest.update(f"{file.relative_to(place).as_posix()}\n{file.stat().st_size}\n".encode())
            size += file.stat().st_size
            with file.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
    except OSError as error:
        raise BadInput(f"{place}: cannot be read ({error.strerror})") from None
    return {"path": str(place), "bytes": size, "sha256": digest.hexdigest()}


def _files(place: Path) -> Iterator[Path]:
    if not place.is_dir():
        yield place
        return
    for folder, inner, names in os.walk(place):
        inner[:] = sorted(name for name in inner if not is_litter(name))
        yield from (Path(folder, name) for name in sorted(names) if not is_litter(name))

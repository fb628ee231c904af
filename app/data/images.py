"""Finds the image files in a folder and reads them.

Hidden files and folders (``.`` first, so also the ``._*`` of macOS), and files that systems leave behind, are
skipped at every level and counted.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.data.labels import some
from app.data.shaping import resized
from strategies.core.errors import BadInput

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_LITTER = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir"})
_GREY_MODES = frozenset({"1", "L", "LA", "La"})
_DEEP_MODES = ("I", "F")


def is_litter(name: str) -> bool:
    """Say whether a file or folder is hidden, or left behind by a system.

    >>> is_litter("._3.png"), is_litter("Thumbs.db"), is_litter("3.png")
    (True, True, False)
    """
    return name.startswith(".") or name.lower() in _LITTER


@dataclass(frozen=True)
class Found:
    """The files in a folder and below it: images, sorted; hidden or system files (`litter`); others."""

    files: Sequence[Path] = ()
    litter: Sequence[Path] = ()
    others: Sequence[Path] = ()

    def __bool__(self) -> bool:
        """Say whether there are images."""
        return bool(self.files)

    @staticmethod
    def joined(parts: Iterable["Found"]) -> "Found":
        """Return the files of several folders together."""
        listed = list(parts)
        return Found(
            [path for part in listed for path in part.files],
            [path for part in listed for path in part.litter],
            [path for part in listed for path in part.others],
        )

    def notes(self, folder: Path) -> list[str]:
        """Return the notes on skipped files."""
        kinds = ((self.litter, "hidden or a system's"), (self.others, "no image"))
        return [
            f"{folder}: skipped {len(files)} {'file' if len(files) == 1 else 'files'}, {what} "
            f"({some([str(file.relative_to(folder)) for file in files])})"
            for files, what in kinds
            if files
        ]


def find_images(folder: Path) -> Found:
    """Return the files in a folder and those below it."""
    files: list[Path] = []
    litter: list[Path] = []
    others: list[Path] = []
    for place, _, names in os.walk(folder):
        hidden = any(map(is_litter, Path(place).relative_to(folder).parts))
        for name in names:
            is_image = Path(name).suffix.lower() in SUFFIXES
            kind = litter if hidden or is_litter(name) else files if is_image else others
            kind.append(Path(place, name))
    return Found(sorted(files), sorted(litter), sorted(others))


def read_images(files: Sequence[Path], size: int = 0) -> tuple[np.ndarray, list[str]]:
    """Read at least one image of one data set.

    Images that differ in size are scaled to squares with side `size`; with 0 they are refused.

    Returns
    -------
    tuple
        Shape [n, height, width] if all images are grey, else [n, height, width, 3], uint8; and notes.

    Raises
    ------
    BadInput
        If a file cannot be read, has more than 8 bits a pixel, or sizes differ and no size is given.
    """
    images = [_read_image(file) for file in files]
    shapes = {image.shape[:2]: file for image, file in zip(images, files, strict=True)}
    notes = []
    if len(shapes) > 1:
        if not size:
            raise BadInput(_differ(shapes))
        stretched = sum(image.shape[0] != image.shape[1] for image in images)
        notes.append(
            f"images of {len(shapes)} sizes were scaled to {size}×{size}; {stretched} of {len(images)} were "
            "not square and are stretched; crop or pad them first to keep their proportions"
        )
        images = [_scaled(image, size) for image in images]
    return np.stack(images if all(image.ndim == 2 for image in images) else _all_coloured(images)), notes


def _differ(shapes: dict[tuple[int, ...], Path]) -> str:
    sizes = "; ".join(f"{width}×{height}, as {file}" for (height, width), file in sorted(shapes.items())[:2])
    return (
        f"images differ in size ({sizes}); give data.size, which scales all to one square, or crop or pad "
        "them to one size"
    )


def _scaled(image: np.ndarray, size: int) -> np.ndarray:
    planes = torch.from_numpy(image if image.ndim == 3 else image[..., None]).permute(2, 0, 1)
    scaled = resized(planes[None], size)[0].permute(1, 2, 0).numpy()  # [size, size, channels]
    return scaled if image.ndim == 3 else scaled[..., 0]


def _read_image(file: Path) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        # Given a path, Pillow maps a plain TIFF into memory, one that is to be turned with the wrong size
        with file.open("rb") as stream, Image.open(stream) as image:
            _refuse_deep(image.mode, file)
            image.load()  # Turns TIFF upright by itself, and takes the orientation away
            return as_bytes(ImageOps.exif_transpose(image), file)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise BadInput(f"{file}: cannot be read as an image; replace or remove it") from error


def as_bytes(image: Any, where: object) -> np.ndarray:
    """Return an image of Pillow as bytes: [height, width] if it is grey, else [height, width, 3].

    Raises
    ------
    BadInput
        If it has more than 8 bits a pixel.
    """
    _refuse_deep(image.mode, where)
    return np.array(image.convert("L" if image.mode in _GREY_MODES else "RGB"))


def _refuse_deep(mode: str, where: object) -> None:
    if mode.startswith(_DEEP_MODES):
        raise BadInput(f"{where}: has more than 8 bits a pixel, which would be cut off; convert it first")


def _all_coloured(images: Iterable[np.ndarray]) -> list[np.ndarray]:
    return [np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image for image in images]

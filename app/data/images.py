"""Finds the image files in a folder and reads them.

Hidden files and folders (``.`` first, so also the ``._*`` of macOS), and files that systems leave behind, are
skipped at every level and counted.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from app.data.labels import some
from app.data.pool import Pixels, channels_first
from app.data.shaping import resized
from strategies.core.errors import BadInput

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_LITTER = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir"})
_GREY_MODES = frozenset({"1", "L", "LA", "La"})
_DEEP_MODES = ("I", "F")
_COLOURS = 3
_ORIENTATION = 0x0112
_TURNED = range(5, 9)
"""Orientations of EXIF 2.3, table 4.6.4 A, that exchange height and width."""


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


@dataclass(frozen=True)
class Headers:
    """What the files of one data set say of their images, upright.

    Parameters
    ----------
    shapes
        Each (height, width), with the first file of that shape.
    grey
        Whether all images are grey.
    stretched
        How many are not square.
    """

    shapes: Mapping[tuple[int, int], Path]
    grey: bool
    stretched: int

    @staticmethod
    def of(files: Sequence[Path]) -> "Headers":
        """Read the headers of at least one file; raises as `read_images` does."""
        shapes: dict[tuple[int, int], Path] = {}
        grey, stretched = True, 0
        for file in files:
            shape, is_grey = _header(file)
            shapes[shape] = file
            grey, stretched = grey and is_grey, stretched + (shape[0] != shape[1])
        return Headers(shapes, grey, stretched)

    def shape(self, size: int) -> tuple[int, int, int]:
        """Return (channels, height, width) of each image when it is read, scaled if their sizes differ.

        Raises
        ------
        BadInput
            If they differ in size, and no size is given.
        """
        if len(self.shapes) > 1 and not size:
            raise BadInput(_differ(self.shapes))
        height, width = next(iter(self.shapes)) if len(self.shapes) == 1 else (size, size)
        return (1 if self.grey else _COLOURS), height, width

    def notes(self, size: int, count: int) -> list[str]:
        """Return a note where images are scaled as they differ in size."""
        return [_scaled_note(len(self.shapes), size, self.stretched, count)] if len(self.shapes) > 1 else []


@final
class ImageFiles(Pixels):
    """Images in files, decoded when they are asked for, each as `read_images` reads it.

    Parameters
    ----------
    files
        At least one.
    shape
        (channels, height, width) of each; another size than a file's is made by scaling.
    """

    def __init__(self, files: Sequence[Path], shape: tuple[int, int, int]) -> None:
        self._files, self._shape = files, shape

    @property
    def shape(self) -> tuple[int, ...]:
        """Number, channels, height and width."""
        return len(self._files), *self._shape

    def __getitem__(self, index: Tensor) -> "ImageFiles":
        """Return the images at positions, or where a mask is true; nothing is decoded."""
        positions = index.nonzero().flatten() if index.dtype == torch.bool else index
        return ImageFiles([self._files[i] for i in positions.tolist()], self._shape)

    def sized(self, size: int) -> "ImageFiles":
        """Return images that are scaled to squares when they are decoded."""
        return ImageFiles(self._files, (self._shape[0], size, size))

    def read(self, index: Tensor) -> Tensor:
        """Return the images at positions, shape [k, channels, height, width], uint8, channels last in memory.

        Raises
        ------
        BadInput
            If a file cannot be read any more, or is another image than it was.
        """
        return channels_first(np.stack([self._image(self._files[i]) for i in index.tolist()]))

    def _image(self, file: Path) -> np.ndarray:
        image, (channels, height, width) = _read_image(file), self._shape
        if image.shape[:2] != (height, width):
            if height != width:
                raise BadInput(f"{file}: is {image.shape[1]}×{image.shape[0]} now, and was {width}×{height}")
            image = _scaled(image, height)
        if channels == 1 and image.ndim == 3:
            raise BadInput(f"{file}: is coloured now, and was grey")
        return np.ascontiguousarray(_coloured(image) if channels > 1 else image)

    def fingerprint(self, index: Tensor) -> Iterator[bytes]:
        """Yield the files' content, without decoding it."""
        yield repr(self._shape).encode()
        for position in index.tolist():
            yield self._files[position].read_bytes()


def _header(file: Path) -> tuple[tuple[int, int], bool]:
    """Return (height, width) of an upright image, and whether it is grey, without decoding it."""
    with _opened(file) as image:
        _refuse_deep(image.mode, file)
        if image.format == "TIFF":  # Pillow turns it upright when it is loaded
            shape = _read_image(file).shape
            return (shape[0], shape[1]), image.mode in _GREY_MODES
        turned = image.getexif().get(_ORIENTATION, 1) in _TURNED
        return (image.size if turned else image.size[::-1]), image.mode in _GREY_MODES


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
    shapes = {(image.shape[0], image.shape[1]): file for image, file in zip(images, files, strict=True)}
    notes = []
    if len(shapes) > 1:
        if not size:
            raise BadInput(_differ(shapes))
        stretched = sum(image.shape[0] != image.shape[1] for image in images)
        notes.append(_scaled_note(len(shapes), size, stretched, len(images)))
        images = [_scaled(image, size) for image in images]
    return np.stack(images if all(image.ndim == 2 for image in images) else _all_coloured(images)), notes


def _scaled_note(num_shapes: int, size: int, stretched: int, count: int) -> str:
    return (
        f"images of {num_shapes} sizes were scaled to {size}×{size}; {stretched} of {count} were "
        "not square and are stretched; crop or pad them first to keep their proportions"
    )


def _differ(shapes: Mapping[tuple[int, int], Path]) -> str:
    sizes = "; ".join(f"{width}×{height}, as {file}" for (height, width), file in sorted(shapes.items())[:2])
    return (
        f"images differ in size ({sizes}); give data.size, which scales all to one square, or crop or pad "
        "them to one size"
    )


def _scaled(image: np.ndarray, size: int) -> np.ndarray:
    planes = torch.from_numpy(image if image.ndim == 3 else image[..., None]).permute(2, 0, 1)
    scaled = resized(planes[None], size)[0].permute(1, 2, 0).numpy()  # [size, size, channels]
    return scaled if image.ndim == 3 else scaled[..., 0]


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open an image; what goes wrong with it becomes one line."""
    from PIL import Image, UnidentifiedImageError

    try:
        # Given a path, Pillow maps a plain TIFF into memory, one that is to be turned with the wrong size
        with file.open("rb") as stream, Image.open(stream) as image:
            yield image
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise BadInput(f"{file}: cannot be read as an image; replace or remove it") from error


def _read_image(file: Path) -> np.ndarray:
    from PIL import ImageOps

    with _opened(file) as image:
        _refuse_deep(image.mode, file)
        image.load()  # Turns TIFF upright by itself, and takes the orientation away
        return as_bytes(ImageOps.exif_transpose(image), file)


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
    return [_coloured(image) for image in images]


def _coloured(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], _COLOURS, axis=-1) if image.ndim == 2 else image

"""Triggered test images and the models' predictions: the file `triggered.npz` in a request's folder.

The workflow that has the models at hand writes it, so the report needs no model. Arrays, n images each:

    pixels               [n, H, W] or [n, channels, H, W], float32
    true-labels          [n], int64
    prediction/<model>   [n], int64, one per model, in the order in which they are shown
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from strategies.core.arrays import read_arrays
from strategies.core.errors import RunCorrupt
from strategies.runs.files import read_bytes, write_chunks

TRIGGERED = "triggered.npz"
"""Name of the file."""

_PIXELS, _LABELS, _PREDICTION = "pixels", "true-labels", "prediction/"
_CHANNELS = (1, 3)


@dataclass(frozen=True, eq=False)
class TriggeredImage:
    """A test image on which the trigger was stamped.

    `pixels` has shape [H, W] or [channels, H, W] with 1 or 3 channels, any range; `true_label` is its class
    before that; `predictions` has the class by model: ``before``, ``after`` and ``retrain``, the same for
    every image.
    """

    pixels: npt.NDArray[np.float32]
    true_label: int
    predictions: Mapping[str, int]


def write_triggered(folder: Path, images: Sequence[TriggeredImage]) -> Path:
    """Replace the triggered images of a request's folder, at least one, and return their file.

    Raises
    ------
    ValueError
        If there is no image, or they differ in shape or in their models.
    LetheError
        If the disk does not take the file.
    """
    models = {tuple(image.predictions) for image in images}
    if len({image.pixels.shape for image in images}) != 1 or len(models) != 1:
        raise ValueError(
            "expected at least one image, all of one shape and with predictions of the same models"
        )
    arrays: dict[str, npt.NDArray[np.generic]] = {
        _PIXELS: np.stack([image.pixels for image in images]).astype(np.float32),
        _LABELS: np.array([image.true_label for image in images], dtype=np.int64),
    }
    for model in models.pop():
        arrays[_PREDICTION + model] = np.array([i.predictions[model] for i in images], dtype=np.int64)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_chunks(folder / TRIGGERED, [buffer.getvalue()])
    return folder / TRIGGERED


def read_triggered(folder: Path) -> tuple[TriggeredImage, ...]:
    """Return the triggered images of a request's folder; empty if there are none.

    Raises
    ------
    RunCorrupt
        If the file is damaged.
    """
    path = folder / TRIGGERED
    if not path.exists():
        return ()
    try:
        arrays = read_arrays(io.BytesIO(read_bytes(path)))
    except ValueError:
        raise RunCorrupt(f"{path}: damaged, not an npz file of plain arrays") from None
    return _decoded(arrays, path)


def _decoded(arrays: Mapping[str, npt.NDArray[np.generic]], path: Path) -> tuple[TriggeredImage, ...]:
    pixels, labels = arrays.get(_PIXELS), arrays.get(_LABELS)
    if pixels is None or labels is None or not _are_images(pixels):
        raise RunCorrupt(
            f"{path}: damaged, expected '{_PIXELS}' of 3 or 4 dimensions and '{_LABELS}'; pixels are "
            "floats, n×height×width, or with 1 or 3 channels before the height"
        )
    with np.errstate(over="ignore"):
        floats = pixels.astype(np.float32)
    if not np.isfinite(floats).all():
        raise RunCorrupt(f"{path}: damaged, '{_PIXELS}' are not finite or too large for float32")
    predictions = {n.removeprefix(_PREDICTION): v for n, v in arrays.items() if n.startswith(_PREDICTION)}
    if not all(_are_classes(values, len(pixels)) for values in (labels, *predictions.values())):
        raise RunCorrupt(
            f"{path}: damaged, expected one label and prediction for each of {len(pixels)} images, from 0"
        )
    return tuple(
        TriggeredImage(
            floats[i],
            int(labels[i]),
            {model: int(values[i]) for model, values in predictions.items()},
        )
        for i in range(len(pixels))
    )


def _are_images(pixels: npt.NDArray[np.generic]) -> bool:
    known = pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[1] in _CHANNELS)
    return known and pixels.dtype.kind == "f" and pixels.size > 0


def _are_classes(values: npt.NDArray[np.generic], count: int) -> bool:
    return values.shape == (count,) and values.dtype.kind in "iu" and int(values.min()) >= 0

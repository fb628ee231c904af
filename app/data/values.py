"""What a user's inputs and targets become: tensors of the types that models and tasks take.

- Pixels, that is images of Pillow and bytes of at least two dimensions, become floats in [0, 1], channels
  first; numpy images may have channels last.
- Other floats become float32; whole numbers become int64, as the tokens of a text are.
- Targets follow `TargetKind`: ``classes`` are whole numbers or texts and become int64, ``numbers`` float32;
  ``given`` leaves whole numbers int64 and floats float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from app.config.settings import is_integer
from app.data.images import as_bytes
from app.data.labels import encoded, texts_of
from app.data.pool import WHITE
from app.data.shaping import resized
from strategies.core.errors import BadInput

TargetKind = Literal["classes", "numbers", "given"]
_LAST_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class TargetRule:
    """How targets become a tensor.

    Parameters
    ----------
    class_names
        One per class: what texts, or under ``classes`` whole numbers if all names are such, are found by;
        empty: targets are 0 to K − 1 already.
    where
        Begins the messages.
    """

    kind: TargetKind = "given"
    class_names: Sequence[str] = ()
    where: str = "data"

    def tensor(self, values: object) -> Tensor:
        """Return targets of several examples, shape [n, ...].

        Raises
        ------
        BadInput
            If they are not of the kind.
        """
        given = stacked(values, self.where, "target")
        if isinstance(given, np.ndarray) and given.dtype.kind in "USO":
            return self._labels(given)
        tensor = given if isinstance(given, Tensor) else torch.from_numpy(given.copy())
        if self.kind == "numbers":
            return self._finite(tensor.float())
        if self.kind == "classes" and tensor.dim() == 1:
            return self._labels(tensor.numpy())
        return self._finite(tensor.float()) if tensor.is_floating_point() else tensor.long()

    def _labels(self, labels: np.ndarray) -> Tensor:
        if self.kind == "numbers":
            raise BadInput(f"{self.where}: targets are {labels.dtype}, such as {labels[0]!r}; wanted numbers")
        found = texts_of(labels.astype(str) if labels.dtype.kind == "O" else labels)
        if isinstance(found, str):
            raise BadInput(f"{self.where}: targets: {found}")
        is_text = labels.dtype.kind in "USO"
        if self.class_names and (is_text or all(map(is_integer, self.class_names))):
            return encoded(*found, self.class_names)
        if is_text:
            raise BadInput(
                f"{self.where}: targets are texts, such as {found[0][0]!r}; give the names of all classes, "
                "so that every client numbers them in the same way"
            )
        return torch.from_numpy(labels.astype(np.int64))

    def _finite(self, targets: Tensor) -> Tensor:
        if not bool(targets.isfinite().all()):
            raise BadInput(f"{self.where}: a target is not finite; remove its example, or replace it")
        return targets


def stacked(values: object, where: str, what: str) -> Tensor | np.ndarray:
    """Return values of several examples as one tensor or array, shape [n, ...].

    Raises
    ------
    BadInput
        If they have different shapes.
    """
    if isinstance(values, Tensor | np.ndarray):
        return values
    listed = list(values) if isinstance(values, Sequence) else [values]
    tensors = [value for value in listed if isinstance(value, Tensor)]
    if tensors and len(tensors) == len(listed):
        check_shapes([tuple(value.shape) for value in tensors], where, what)
        return torch.stack(tensors)
    arrays = [np.asarray(value) for value in listed]
    check_shapes([array.shape for array in arrays], where, what)
    return np.stack(arrays)


def check_shapes(shapes: Sequence[tuple[int, ...]], where: str, what: str) -> None:
    """Refuse shapes that differ, in one line that names two of them."""
    if other := next((shape for shape in shapes if shape != shapes[0]), None):
        raise BadInput(
            f"{where}: {what}s differ in shape, such as {shapes[0]} and {other}; bring them to one shape in "
            "the data set, or images by data.size"
        )


def inputs_tensor(values: object, where: str, size: int = 0) -> Tensor:
    """Return inputs of several examples that lie in memory, shape [n, ...]; see `as_input`."""
    given = stacked(values, where, "input")
    if isinstance(given, np.ndarray):
        if given.dtype.kind not in "biuf":
            raise BadInput(f"{where}: inputs are {given.dtype}; wanted numbers, or images")
        given = torch.from_numpy(_with_channels(given, single=False))
    tensor = _sized(given, size)
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise BadInput(f"{where}: an input is not finite; replace or remove it")
    return _numbers(tensor, pixels=tensor.dim() >= 3)


def as_input(value: Any, where: str, size: int = 0, channels: int = 0) -> Tensor:
    """Return the input of one example.

    Parameters
    ----------
    value
        A tensor, an array, an image of Pillow, a number or a list of numbers.
    size
        Side of the square that images are scaled to; neutral 0.
    channels
        3 repeats grey images of Pillow to colour; neutral 0.

    Raises
    ------
    BadInput
        If it is none of these.
    """
    if hasattr(value, "getbands"):  # An image of Pillow, which need not be imported to know it
        value = as_bytes(value, where)
        if channels == 3 and value.ndim == 2:
            value = np.repeat(value[..., None], 3, axis=-1)
    if isinstance(value, Tensor):
        return _one(value, size)
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise BadInput(
            f"{where}: an input is {type(value).__name__}; wanted a tensor, an array, an image or numbers"
        )
    return _one(torch.from_numpy(_with_channels(array, single=True).copy()), size)


def _one(tensor: Tensor, size: int) -> Tensor:
    return _numbers(_sized(tensor[None], size)[0], pixels=tensor.dim() >= 2)


def _with_channels(array: np.ndarray, *, single: bool) -> np.ndarray:
    """Return bytes of images with channels first; other arrays as they are."""
    dims = array.ndim if single else array.ndim - 1
    if array.dtype != np.uint8 or dims not in (2, 3):
        return array
    if dims == 2:
        return np.expand_dims(array, -3)
    return np.moveaxis(array, -1, -3) if array.shape[-1] in _LAST_CHANNELS else array


def _sized(images: Tensor, size: int) -> Tensor:
    if not size or images.dim() != 4 or tuple(images.shape[2:]) == (size, size):
        return images
    return resized(images, size)


def _numbers(tensor: Tensor, *, pixels: bool) -> Tensor:
    if tensor.dtype == torch.uint8 and pixels:
        return tensor.float().div_(WHITE)
    whole = tensor.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    return tensor.long() if whole else tensor.float()

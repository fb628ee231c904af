"""What a user's inputs and targets become: tensors of the types that models and tasks take.

- Pixels, that is images of Pillow and bytes of at least two dimensions, become floats in [0, 1], channels
  first; numpy images may have channels last.
- Other floats become float32; whole numbers become int64, as the tokens of a text are.
- Targets follow `TargetKind`: ``classes`` are whole numbers or texts and become int64, ``numbers`` float32;
  ``given`` leaves whole numbers int64 and floats float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from app.config.settings import is_integer
from app.data.images import as_bytes
from app.data.labels import MOST_CLASSES, UnknownLabels, encoded, texts_of
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
    lowest
        The least label that may be; −1 where examples may be without one.
    """

    kind: TargetKind = "given"
    class_names: Sequence[str] = ()
    where: str = "data"
    lowest: int = 0

    def tensor(self, values: object) -> Tensor:
        """Return targets of several examples, shape [n, ...].

        Raises
        ------
        BadInput
            If they are not of the kind.
        """
        given = stacked(values, self.where, "target")
        if isinstance(given, np.ndarray) and given.dtype.kind == "O":
            given = plain_values(given, self.where)
        if isinstance(given, np.ndarray) and given.dtype.kind in "US":
            return self._labels(given)
        tensor = given.detach() if isinstance(given, Tensor) else as_tensor(given, self.where, "target")
        real(tensor, self.where, "target")
        if self.kind == "numbers":
            return self._finite(tensor.float())
        if self.kind == "classes":
            return self._labels(self._one_each(tensor).numpy())
        return self._finite(tensor.float()) if tensor.is_floating_point() else tensor.long()

    def _one_each(self, targets: Tensor) -> Tensor:
        """Return labels as shape [n]; a column of them, shape [n, 1], is taken as scikit-learn takes it."""
        flat = targets.flatten(1) if targets.dim() > 1 else targets.reshape(len(targets), 1)
        if flat.shape[1] != 1:
            raise BadInput(
                f"{self.where}: each target has shape {tuple(targets.shape[1:])}; wanted one label for each "
                '(of one-hot: the place of the 1), or another task, such as "multi-label" or "segmentation"'
            )
        return flat[:, 0]

    def _labels(self, labels: np.ndarray) -> Tensor:
        if self.kind == "numbers":
            raise BadInput(
                f"{self.where}: targets are texts, such as {str(labels.flat[0])!r}; wanted numbers"
            )
        found = texts_of(labels)
        if isinstance(found, str):
            raise BadInput(f"{self.where}: targets: {found}")
        is_text = labels.dtype.kind in "USO"
        if self.class_names and (is_text or all(map(is_integer, self.class_names))):
            try:
                return encoded(*found, self.class_names)
            except UnknownLabels as error:
                raise UnknownLabels(
                    error.labels, error.names, self.where, "lethe.Project(classes=)"
                ) from None
        if is_text and self.kind == "given":
            raise BadInput(
                f"{self.where}: targets are texts, such as {found[0][0]!r}; wanted numbers, or the names of "
                "all texts by lethe.Project(classes=)"
            )
        if is_text:
            raise BadInput(
                f"{self.where}: targets are texts, such as {found[0][0]!r}; give the names of all classes by "
                "lethe.Project(classes=), so that every client numbers them in the same way"
            )
        different = sorted(map(int, found[0]))
        most = (len(self.class_names) or MOST_CLASSES) - 1
        if different[0] < self.lowest or different[-1] > most:
            wrong = different[0] if different[0] < self.lowest else different[-1]
            raise BadInput(
                f"{self.where}: given label {wrong}, allowed 0 to {most}, numbers of classes; or give all "
                "labels as names, lethe.Project(classes=)"
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
    if type(values).__name__ == "Series":
        return np.asarray(values)
    listed = list(values) if isinstance(values, Sequence) else [values]
    tensors = [value for value in listed if isinstance(value, Tensor)]
    if tensors and len(tensors) == len(listed):
        check_shapes([tuple(value.shape) for value in tensors], where, what)
        return torch.stack(tensors)
    arrays = [np.asarray(value) for value in listed]
    check_shapes([array.shape for array in arrays], where, what)
    if len({array.dtype.kind in "US" for array in arrays if array.dtype.kind != "O"}) > 1:
        raise BadInput(f"{where}: {what}s are texts and numbers; wanted one kind")
    return np.stack(arrays)


def plain_values(values: np.ndarray, where: str) -> np.ndarray:
    """Return targets that came as objects as texts or numbers.

    Raises
    ------
    BadInput
        If one is missing, or they are neither.
    """
    listed = values.ravel().tolist()
    if lacking := [value for value in listed if value is None or str(value) in ("nan", "<NA>", "NaT")]:
        raise BadInput(f"{where}: a target is missing ({lacking[0]}); remove its example, or give one")
    if all(isinstance(value, str) for value in listed):
        return values.astype(str)
    if strange := [v for v in listed if not isinstance(v, bool | int | float | np.number | Decimal)]:
        mixed = "texts and numbers" if isinstance(strange[0], str) else type(strange[0]).__name__
        raise BadInput(f"{where}: targets are {mixed}; wanted whole numbers, texts or numbers, of one kind")
    return np.array([float(v) if isinstance(v, Decimal) else v for v in listed]).reshape(values.shape)


def as_tensor(values: np.ndarray, where: str, what: str) -> Tensor:
    """Return an array as a tensor of its own.

    Raises
    ------
    BadInput
        If torch has no such numbers.
    """
    try:
        return torch.from_numpy(values.astype(values.dtype.newbyteorder("="), order="C", copy=True))
    except TypeError:
        raise BadInput(f"{where}: {what}s are {values.dtype}; wanted numbers") from None


def real(tensor: Tensor, where: str, what: str) -> None:
    """Refuse numbers that are complex, of which half would be lost, or that do not lie in memory."""
    if tensor.is_complex():
        raise BadInput(f"{where}: {what}s are {tensor.dtype}; wanted real numbers, such as two for each")
    if tensor.layout != torch.strided or tensor.is_meta:
        kind = "meta" if tensor.is_meta else tensor.layout
        raise BadInput(f"{where}: {what}s are a tensor of kind {kind}; wanted a dense one in memory")


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
        given = as_tensor(_with_channels(given, single=False), where, "input")
    real(given, where, "input")
    tensor = _sized(given.detach(), size)
    return _numbers(finite(tensor, where), pixels=tensor.dim() >= 3)


def finite(inputs: Tensor, where: str) -> Tensor:
    """Return inputs, shape [n, ...], if none of them is NaN or infinite."""
    # A finite sum has only finite terms, and is the faster one to compute.
    fine = not inputs.is_floating_point() or bool(inputs.sum().isfinite()) or bool(inputs.isfinite().all())
    if not fine:
        raise BadInput(f"{where}: an input is not finite; replace or remove it")
    return inputs


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
        real(value, where, "input")
        return _one(value.detach(), size)
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

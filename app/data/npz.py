"""A user's own data in an npz file.

The file holds ``x_train`` and ``y_train``, or ``x`` and ``y``; ``x_test`` and ``y_test`` may follow. Labels
are whole numbers or texts, see `app.data.labels`. Inputs are one of

- images as uint8, [n, height, width] or [n, height, width, channels]; scaled to [0, 1], channels first;
- floats, taken as they are: [n, channels, height, width], or [n, height, width], which gets a channel axis;
- a table of numbers, [n, features], taken as they are.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app.data.labels import joint_classes, notes_on, texts_of
from app.data.pool import DataSet, Pool, channels_first
from app.data.values import TargetRule
from strategies.core.arrays import read_arrays
from strategies.core.errors import BadInput

_CHANNELS = (1, 3, 4)


def read_npz(path: Path, class_names: Sequence[str] = (), targets: str = "classes") -> DataSet:
    """Read an npz file of the form described above.

    `class_names` has one name per class of the run, for a file that is not the run's; empty: the labels in
    the file are the classes. With `targets` ``numbers`` they are no labels, but numbers to be predicted.

    Raises
    ------
    BadInput
        If there is no such file, it is no npz file, an array is missing or not as described, inputs and
        labels differ in number, training and test inputs differ in shape, or a label is no class of the run.
    """
    arrays = read_npz_arrays(path)
    keys = [("x", "y") if "x" in arrays else ("x_train", "y_train")]
    if "x_test" in arrays or "y_test" in arrays:
        keys.append(("x_test", "y_test"))
    parts = [_part(path, arrays, *pair, targets) for pair in keys]
    given = [(key, y) for (_, key), (_, y) in zip(keys, parts, strict=True)]
    ys, names = _targets(path, given, class_names, targets)
    pools = [Pool(x, y) for (x, _), y in zip(parts, ys, strict=True)]
    train, test = pools[0], pools[1] if len(pools) > 1 else None
    if test is not None and test.input_shape != train.input_shape:
        shapes = f"{train.input_shape} for training and {test.input_shape} for testing"
        raise BadInput(f"{path}: inputs have shape {shapes}; they must have the same")
    notes = [] if class_names or not names else notes_on(str(path), names, train.y.tolist())
    return DataSet(f"npz:{path}", train, test, names, tuple(notes))


def _targets(
    path: Path, given: Sequence[tuple[str, np.ndarray]], class_names: Sequence[str], targets: str
) -> tuple[list[Tensor], tuple[str, ...]]:
    """Return the targets of each part, and the names of all classes; `given` has the array's name first."""
    if targets == "numbers":
        return [TargetRule("numbers", where=f"{path}: {key}").tensor(y) for key, y in given], ()
    return joint_classes([_texts(path, key, y) for key, y in given], class_names, str(path), given[0][0])


def read_npz_arrays(path: Path) -> Mapping[str, np.ndarray]:
    """Return the arrays of an npz file by name; BadInput if there is no such file, or it is none."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file; give the path of an npz file on this machine")
    try:
        with path.open("rb") as file:
            return read_arrays(file)
    except (ValueError, OSError) as error:
        raise BadInput(
            f"{path}: cannot be read as an npz file of plain arrays; write it with numpy.savez"
        ) from error


def _part(
    path: Path, arrays: Mapping[str, np.ndarray], x_key: str, y_key: str, targets: str
) -> tuple[Tensor, np.ndarray]:
    """Return inputs and targets."""
    if x_key not in arrays or y_key not in arrays:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise BadInput(
            f"{path}: holds {found}; wanted x_train and y_train, or x and y, and x_test together with y_test"
        )
    x, y = arrays[x_key], arrays[y_key]
    if targets == "numbers" and (not y.ndim or y.dtype.kind not in "biuf"):
        raise BadInput(f"{path}: {y_key} is {_kind(y)}; wanted numbers, at least one per input")
    if targets == "classes":
        _texts(path, y_key, y)
    if len(np.atleast_1d(x)) != len(y):
        raise BadInput(
            f"{path}: {x_key} is {_kind(x)} but there are {len(y)} labels in {y_key}; wanted as many"
        )
    if not x.size:
        raise BadInput(f"{path}: {x_key} is {_kind(x)}, which holds no number; wanted at least one per input")
    return inputs_of(path, x_key, x), y


def _texts(path: Path, key: str, y: np.ndarray) -> tuple[list[str], np.ndarray]:
    found = texts_of(y)
    if isinstance(found, str):
        other = "; a project brings targets of any shape (lethe new)" if y.ndim > 1 else ""
        raise BadInput(f"{path}: {key} is {_kind(y)}; {found}{other}")
    return found


def inputs_of(path: Path, key: str, x: np.ndarray) -> Tensor:
    """Return an array as inputs, shape [n, ...]: bytes of images stay bytes; BadInput if it is none."""
    if x.dtype == np.uint8 and (x.ndim == 3 or (x.ndim == 4 and x.shape[-1] in _CHANNELS)):
        return channels_first(x)
    is_table = x.ndim == 2 and x.dtype.kind in "biuf"
    if not is_table and not (x.ndim >= 3 and x.dtype.kind == "f"):
        raise BadInput(
            f"{path}: {key} is {_kind(x)}; wanted images as uint8 (n×height×width, or with channels last), "
            "floats, or a table of numbers (n×features)"
        )
    with np.errstate(over="ignore"):
        values = torch.from_numpy(x.astype(np.float32))
    if not bool(values.isfinite().all()):
        raise BadInput(
            f"{path}: {key} holds values that are not finite or too large for float32; replace or remove them"
        )
    return values.unsqueeze(1) if x.ndim == 3 else values


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"

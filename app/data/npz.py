"""A user's own data in an npz file.

The file holds ``x_train`` and ``y_train``, or ``x`` and ``y``; ``x_test`` and ``y_test`` may follow. Labels
are integers from 0. Inputs are one of

- images as uint8, [n, height, width] or [n, height, width, channels]; scaled to [0, 1], channels first;
- floats, taken as they are: [n, channels, height, width], or [n, height, width], which gets a channel axis;
- a table of numbers, [n, features], taken as they are.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app.data.pool import DataSet, Pool, channels_first, numbered
from strategies.errors import BadInput
from strategies.numpy_files import read_arrays

_CHANNELS = (1, 3, 4)
_MOST_CLASSES = 1 << 20
"""A model has an output for each: more would not fit, and labels of that size are no class labels."""


def read_npz(path: Path) -> DataSet:
    """Read an npz file of the form described above.

    Raises
    ------
    BadInput
        If there is no such file, it is no npz file, an array is missing or not as described, inputs and
        labels differ in number, or training and test inputs differ in shape.
    """
    arrays = _read_arrays(path)
    train = _pool(path, arrays, *(("x", "y") if "x" in arrays else ("x_train", "y_train")))
    has_test = "x_test" in arrays or "y_test" in arrays
    test = _pool(path, arrays, "x_test", "y_test") if has_test else None
    if test is not None and test.x.shape[1:] != train.x.shape[1:]:
        shapes = f"{tuple(train.x.shape[1:])} for training and {tuple(test.x.shape[1:])} for testing"
        raise BadInput(f"{path}: inputs have shape {shapes}; they must have the same")
    last_label = max(int(pool.y.max()) for pool in (train, test) if pool is not None)
    return DataSet(f"npz:{path}", train, test, numbered(last_label + 1))


def _read_arrays(path: Path) -> Mapping[str, np.ndarray]:
    if not path.is_file():
        raise BadInput(f"{path}: no such file; give the path of an npz file on this machine")
    try:
        with path.open("rb") as file:
            return read_arrays(file)
    except (ValueError, OSError) as error:
        raise BadInput(
            f"{path}: cannot be read as an npz file of plain arrays; write it with numpy.savez"
        ) from error


def _pool(path: Path, arrays: Mapping[str, np.ndarray], x_key: str, y_key: str) -> Pool:
    if x_key not in arrays or y_key not in arrays:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise BadInput(
            f"{path}: holds {found}; wanted x_train and y_train, or x and y, and x_test together with y_test"
        )
    x, y = arrays[x_key], arrays[y_key]
    if y.ndim != 1 or y.dtype.kind not in "iu" or not y.size or y.min() < 0:
        raise BadInput(f"{path}: {y_key} is {_kind(y)}; wanted one integer label per input, from 0")
    if y.max() >= _MOST_CLASSES:
        raise BadInput(f"{path}: {y_key} holds the label {y.max()}; wanted labels below {_MOST_CLASSES}")
    if len(np.atleast_1d(x)) != len(y):
        raise BadInput(
            f"{path}: {x_key} is {_kind(x)} but there are {len(y)} labels in {y_key}; wanted as many"
        )
    if not x.size:
        raise BadInput(f"{path}: {x_key} is {_kind(x)}, which holds no number; wanted at least one per input")
    return Pool(_inputs(path, x_key, x), torch.from_numpy(y.astype(np.int64)))


def _inputs(path: Path, key: str, x: np.ndarray) -> Tensor:
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

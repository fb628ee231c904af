"""Arrays in numpy's format from untrusted sources: npz files, and the arrays in messages."""

import lzma
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tokenize import TokenError
from typing import BinaryIO
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from flwr.app import Array

_DAMAGE = (
    *(ValueError, TypeError, LookupError, AttributeError, SyntaxError, TokenError, ArithmeticError, Warning),
    *(OSError, EOFError, BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(MemoryError, RuntimeError),  # A shape of terabytes; an encrypted or otherwise packed member
)
"""What numpy and zipfile raise at what is no array or archive, or of a kind that they do not read."""


def read_arrays(file: BinaryIO) -> Mapping[str, npt.NDArray[np.generic]]:
    """Return the arrays of an npz file by name; objects are not unpacked.

    Raises
    ------
    ValueError
        If it is no npz file of plain arrays.
    """
    with _translated():
        archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("a single array, as numpy.save writes it")
        arrays = dict(archive)
    if bare := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise ValueError(f"'{bare[0]}' is no array")
    return arrays


def array_in(array: Array) -> npt.NDArray[np.generic]:
    """Return an array of a message, checked against its stated shape; objects are not unpacked.

    Raises
    ------
    ValueError
        If it is none, or of another shape.
    """
    with _translated():
        values: npt.NDArray[np.generic] = array.numpy()
    if values.shape != tuple(array.shape):
        raise ValueError(f"an array is said to have shape {tuple(array.shape)} and has {values.shape}")
    return values


def floats_in(array: Array) -> npt.NDArray[np.float32]:
    """Return an array of a message as float32; a number that is too large becomes infinite.

    Raises
    ------
    ValueError
        If it is none of real numbers, or of another shape than it says.
    """
    values = array_in(array)
    if values.dtype.kind not in "fiub":
        raise ValueError(f"expected an array of real numbers, got {values.dtype}")
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


@contextmanager
def _translated() -> Iterator[None]:
    """Raise whatever is wrong as a `ValueError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy warns of odd headers and names
            yield
    except _DAMAGE as error:
        raise ValueError(str(error) or type(error).__name__) from error

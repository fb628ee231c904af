"""Reads the parts of a client's answer to the audit: vectors, and sums of scores."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from torch import Tensor


def vector_in(record: ArrayRecord, name: str, size: int, dtype: str) -> Tensor:
    """Return an array of an answer; ValueError if it is not there, or of another shape or type."""
    if name not in record:
        raise ValueError(f"no array '{name}' in the answer; it has {sorted(record)}")
    values = np.array(record[name].numpy())
    if values.shape != (size,) or str(values.dtype) != dtype:
        raise ValueError(f"'{name}' is {values.dtype} {values.shape}, expected {dtype} ({size},)")
    return torch.from_numpy(values)


def check_correct(name: str, correct: Tensor) -> None:
    """Refuse, with a ValueError, what is not from 0 to 1; whole numbers say right or not."""
    if correct.is_floating_point() and not bool(((correct >= 0) & (correct <= 1)).all()):
        raise ValueError(f"'{name}' holds numbers that are not from 0 to 1")
    if bool((correct > 1).any()):
        raise ValueError(f"'{name}' holds {int(correct.max())}, expected only 0 and 1")


def check_marks(name: str, marks: Tensor) -> None:
    """Refuse, with a ValueError, marks of examples, uint8, that are not 0 or 1."""
    if bool((marks > 1).any()):
        raise ValueError(f"'{name}' holds {int(marks.max())}, expected only 0 and 1")


def spread_sum(numbers: Mapping[str, Any], name: str, count: int) -> Tensor:
    """Return a sum of scores as numbers from 0 to 1, shape [count], that add up to it.

    ValueError if no such numbers do.
    """
    value = numbers.get(name)
    if not isinstance(value, int | float) or not 0 <= value <= count:
        raise ValueError(f"'{name}' is {value}, expected a number from 0 to {count}")
    return (value - torch.arange(count, dtype=torch.float64)).clamp(0, 1)

"""The form of a model's inputs: shape and type of each part of one input."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from strategies.core.examples import Inputs

ONE = ""
"""The name of the only part of an input that is one tensor."""
_TYPES = {"float32": torch.float32, "int64": torch.int64, "bool": torch.bool}


@dataclass(frozen=True)
class Form:
    """Shape of one input's part, and its type: ``float32``, ``int64`` or ``bool``."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    def fits(self, part: Tensor) -> bool:
        """Whether several inputs, shape [n, ...], have this shape."""
        return tuple(part.shape[1:]) == self.shape

    def typed(self, part: Tensor) -> Tensor:
        """Return inputs in this type; whole numbers may become floats, but not the other way."""
        wanted = _TYPES[self.dtype]
        return part.to(wanted) if wanted.is_floating_point or not part.is_floating_point() else part

    def made_up(self, count: int) -> Tensor:
        """Return made-up inputs, shape [count, *shape]: numbers in [0, 1], or zeros."""
        if self.dtype != "float32":
            return torch.zeros((count, *self.shape), dtype=_TYPES[self.dtype])
        numbers = torch.arange(Form._size(self.shape) * count, dtype=torch.float32)
        return (numbers * 0.7).sin().abs().reshape(count, *self.shape)

    @staticmethod
    def _size(shape: tuple[int, ...]) -> int:
        return torch.Size(shape).numel()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"shape": list(self.shape), "dtype": self.dtype}


Forms = Mapping[str, Form]
"""The form of each part of an input, by the name of the model's argument; `ONE` for a single tensor."""


def forms_of(inputs: Inputs) -> dict[str, Form]:
    """Return the form of a batch of inputs.

    >>> forms_of(torch.zeros(5, 1, 8, 8))
    {'': Form(shape=(1, 8, 8), dtype='float32')}
    """
    parts = {ONE: inputs} if isinstance(inputs, Tensor) else inputs
    return {name: Form(tuple(part.shape[1:]), _name_of(part.dtype)) for name, part in parts.items()}


def forms_from(document: object) -> dict[str, Form]:
    """Return the forms that plain data describe; ValueError if they describe none."""
    if not isinstance(document, dict):
        raise ValueError("expected the parts of an input by name")
    return {str(name): _form_from(entry) for name, entry in document.items()}


def _form_from(entry: Any) -> Form:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    sizes = shape if isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape) else None
    if sizes is None or entry.get("dtype") not in _TYPES:
        raise ValueError("expected a shape and a type of each part")
    return Form(tuple(sizes), entry["dtype"])


def _name_of(dtype: torch.dtype) -> str:
    if dtype == torch.bool:
        return "bool"
    return "float32" if dtype.is_floating_point else "int64"

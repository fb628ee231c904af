"""Where the entries of a model lie in one flat vector; torch is imported where a vector is made.

What only reads names and shapes, such as the check of a log, does not wait for it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flwr.app import ArrayRecord
    from torch import Tensor

State = dict[str, "Tensor"]
"""A model's `state_dict` on the CPU."""

MAX_ENTRIES = 2**31
"""Entries that a vector has at most."""


@dataclass(frozen=True)
class Layout:
    """Where each floating entry of a state lies in one flat float32 vector.

    Parameters
    ----------
    names, shapes
        The floating entries, in the order of the state.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(state: "Mapping[str, Tensor]") -> "Layout":
        """Return the layout of a state without its integer buffers, which are never averaged."""
        kept = {name: tuple(t.shape) for name, t in state.items() if t.is_floating_point()}
        return Layout(tuple(kept), tuple(kept.values()))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of scalars of each entry."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """Number of scalars in all."""
        return sum(self.sizes)

    def flatten(self, state: "Mapping[str, Tensor]") -> "Tensor":
        """Copy the floating entries of a state into a new flat vector, shape [size], float32."""
        import torch

        parts = [state[name].detach().reshape(-1).to("cpu", torch.float32) for name in self.names]
        return torch.cat(parts) if parts else torch.zeros(0)

    def unflatten(self, flat: "Tensor") -> State:
        """Return views of a flat vector, by name."""
        import torch

        pieces = torch.split(flat, list(self.sizes))
        return {n: p.view(s) for n, p, s in zip(self.names, pieces, self.shapes, strict=True)}

    def difference(self, record: "ArrayRecord") -> str | None:
        """Say how a record's arrays differ from this layout; None if they fit."""
        missing = [n for n in self.names if n not in record]
        extra = [n for n in record if n not in set(self.names)]
        if missing or extra:
            return f"wrong keys: missing {missing[:3]}, unexpected {extra[:3]}"
        for name, shape in zip(self.names, self.shapes, strict=True):
            if tuple(record[name].shape) != shape:
                return f"wrong shape: {name} is {tuple(record[name].shape)}, expected {shape}"
        return None

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

LARGE_BYTES = 2**24
"""Of a float32 vector: from this size on a copy is made only where there is no other way."""
MAX_ENTRIES = 2**31
"""Entries that a vector has at most."""


def is_large(size: int) -> bool:
    """Return whether a float32 vector of so many entries is large."""
    return 4 * size >= LARGE_BYTES


def _fetched(vector: "Tensor") -> "Tensor":
    """Return a copy of a GPU's vector, in memory from which it can also be sent on without the processor."""
    import torch

    fetched = torch.empty(vector.shape, pin_memory=True)
    return fetched.copy_(vector)


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

        from strategies.core.shared_memory import new_vector

        parts = [state[name].detach().reshape(-1) for name in self.names]
        if is_large(self.size):
            vector = new_vector(self.size)
            for place, part in zip(torch.split(vector, list(self.sizes)), parts, strict=True):
                place.copy_(part)
            return vector
        if parts and all(part.is_cuda for part in parts):
            return _fetched(torch.cat([part.float() for part in parts]))
        parts = [part.to("cpu", torch.float32) for part in parts]
        return torch.cat(parts) if parts else torch.zeros(0)

    def vector_of(self, state: "Mapping[str, Tensor]") -> "Tensor":
        """Return the floating entries of a state as one vector, shape [size], float32, not to be changed.

        Nothing is copied where they lie one behind another, as those of a file or of another vector do.
        """
        import torch

        parts = [state[name].detach() for name in self.names]
        if not parts or any(p.dtype != torch.float32 or not p.is_contiguous() for p in parts):
            return self.flatten(state)
        first, end = parts[0], parts[0].storage_offset()
        base = first.untyped_storage().data_ptr()
        for part in parts:
            if part.untyped_storage().data_ptr() != base or part.storage_offset() != end:
                return self.flatten(state)
            end += part.numel()
        alone = first.device.type != "cpu" or first.numel() == 0
        return self.flatten(state) if alone else first.as_strided((self.size,), (1,))

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

"""Labelled examples, as tensors."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Examples:
    """A set of labelled examples.

    Parameters
    ----------
    x
        Inputs, shape [n, ...], float32.
    y
        Class labels, shape [n], int64.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        """Check that inputs and labels pair up."""
        if len(self.x) != len(self.y):
            raise ValueError(f"{len(self.x)} inputs but {len(self.y)} labels")

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.y)

    def subset(self, indices: Tensor | Sequence[int]) -> "Examples":
        """Return the examples at the given positions, in that order."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        return Examples(self.x[index], self.y[index])

    def split(self, chosen: Tensor) -> tuple["Examples", "Examples"]:
        """Return (the chosen, the others) for a boolean mask of shape [n]."""
        return Examples(self.x[chosen], self.y[chosen]), Examples(self.x[~chosen], self.y[~chosen])

    def without(self, indices: Tensor | Sequence[int]) -> "Examples":
        """Return the examples that are not at the given positions, in their order."""
        keep = torch.ones(len(self), dtype=torch.bool)
        keep[torch.as_tensor(indices, dtype=torch.int64)] = False
        return Examples(self.x[keep], self.y[keep])

    def to(self, device: str | torch.device) -> "Examples":
        """Return the examples on a device."""
        return Examples(self.x.to(device), self.y.to(device))

    @staticmethod
    def concat(parts: Iterable["Examples"]) -> "Examples":
        """Join several sets, in order; there must be at least one."""
        listed = list(parts)
        return Examples(torch.cat([p.x for p in listed]), torch.cat([p.y for p in listed]))


def selection_mask(y: Tensor, classes: Sequence[int], indices: Sequence[int]) -> Tensor:
    """Return which examples a class or sample request names.

    Parameters
    ----------
    y
        Labels, shape [n].
    classes
        Labels whose examples are named.
    indices
        Positions that are named; those outside [0, n) name nothing.

    Returns
    -------
    Tensor
        Boolean, shape [n].
    """
    mask = (
        torch.isin(y, torch.as_tensor(classes, dtype=y.dtype))
        if classes
        else torch.zeros(len(y), dtype=torch.bool)
    )
    inside = [i for i in indices if 0 <= i < len(y)]
    if inside:
        mask[torch.as_tensor(inside)] = True
    return mask

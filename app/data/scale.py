"""Brings the columns of a table to one scale, and notes if they are not.

Standardising takes the mean and the deviation of each column over all clients' training data. A simulation
has them in one place; a federation does not, and no code here collects them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_FAR_APART = 100.0
"""From this ratio of the columns' deviations on, training on them as they are goes badly."""


@dataclass(frozen=True, eq=False)
class Scale:
    """Mean and deviation of each column, shape [features], float64; constant columns have deviation 1."""

    mean: Tensor
    deviation: Tensor

    @staticmethod
    def of(x: Tensor) -> "Scale":
        """Return the scale of a table, shape [n, features]."""
        values = x.double()
        deviation = values.std(dim=0, correction=0)
        return Scale(values.mean(dim=0), torch.where(deviation > 0, deviation, 1.0))

    def apply(self, x: Tensor) -> Tensor:
        """Return a table whose columns have mean 0 and deviation 1, if they are like those measured.

        >>> table = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
        >>> Scale.of(table).apply(table).tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
        """
        return ((x.double() - self.mean) / self.deviation).float()


def notes_on_columns(where: str, x: Tensor) -> Sequence[str]:
    """Return a note if the columns of a table, shape [n, features], differ much in scale."""
    if x.dim() != 2 or not x.shape[1]:
        return []
    deviations = x.double().std(dim=0, correction=0)
    varying = deviations[deviations > 0]
    if not len(varying) or (ratio := float(varying.max() / varying.min())) <= _FAR_APART:
        return []
    return [
        f"{where}: the largest deviation of a column is {ratio:.3g} times the smallest, which training takes "
        "badly; in a simulation, data.scale=standard brings all columns to one scale"
    ]

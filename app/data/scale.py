"""Brings the columns of a table to one scale, and notes if they are not.

Standardising takes the mean and the deviation of each column over all clients' training data. A simulation
has them in one place; a federation gets them from secure sums (`strategies.analytics.scaling`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.data.pool import Pixels
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, TensorExamples, in_memory

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

    @staticmethod
    def of_numbers(numbers: Sequence[float]) -> "Scale":
        """Return the scale with some means and deviations, the means first."""
        both = torch.tensor(numbers, dtype=torch.float64).view(2, -1)
        return Scale(both[0], both[1])

    def scaled(self, examples: Examples) -> TensorExamples:
        """Return examples of a table on this scale.

        Raises
        ------
        BadInput
            If the inputs are no table of as many columns.
        """
        if examples.input_shape != (len(self.mean),):
            raise BadInput(
                f"data.scale: inputs have shape {examples.input_shape}, the scale is that of a table of "
                f"{len(self.mean)} columns"
            )
        stored = in_memory(examples)
        return TensorExamples(self.apply(stored.x), stored.y, stored.group_of)

    def apply(self, x: Tensor) -> Tensor:
        """Return a table whose columns have mean 0 and deviation 1, if they are like those measured.

        >>> table = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
        >>> Scale.of(table).apply(table).tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
        """
        return ((x.double() - self.mean) / self.deviation).float()


def notes_on_columns(where: str, x: Tensor | Pixels) -> Sequence[str]:
    """Return a note if the columns of a table, shape [n, features], differ much in scale."""
    if not isinstance(x, Tensor) or x.dim() != 2 or not x.shape[1]:
        return []
    deviations = x.double().std(dim=0, correction=0)
    varying = deviations[deviations > 0]
    if not len(varying) or (ratio := float(varying.max() / varying.min())) <= _FAR_APART:
        return []
    return [
        f"{where}: the largest deviation of a column is {ratio:.3g} times the smallest, which training takes "
        "badly; data.scale=federated brings all columns to one scale, or in a simulation standard"
    ]

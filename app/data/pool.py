"""A data set in memory: examples as they were stored, bytes left as bytes.

Pixels stay uint8, a quarter of their size as floats, until a part of them is asked for, so a process that
serves many clients holds the data set once. Images that were stored channels-last keep that order in memory
behind their channels-first shape; a CPU's convolutions are faster with it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from strategies.core.examples import TensorExamples

WHITE = 255
"""The byte that becomes 1.0."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Labelled examples as they were stored.

    `x` are pixels, shape [n, channels, height, width], uint8, or any inputs, shape [n, ...], float32; `y` are
    class labels, shape [n], int64. `kind` is each example's label before several were made one class,
    `device` its device, from 0; both have shape [n], int64, and are None if the data have none.
    """

    x: Tensor
    y: Tensor
    kind: Tensor | None = None
    device: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    def all(self) -> TensorExamples:
        """Return a copy of all examples, with pixels scaled to [0, 1]."""
        return self.take(np.arange(len(self)))

    def take(self, indices: np.ndarray) -> TensorExamples:
        """Return a copy of the examples at positions, shape [k], int64, with pixels scaled to [0, 1]."""
        index = torch.from_numpy(indices)
        x = self.x[index]
        return TensorExamples(x.float().div_(WHITE) if x.dtype == torch.uint8 else x, self.y[index])


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set with the split that it came with; `test` is None if it came with none.

    `name` is used in messages and reports; `class_names` are in the order of the labels; `notes` tell how it
    was read.
    """

    name: str
    train: Pool
    test: Pool | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example: (channels, height, width) for images."""
        return tuple(self.train.x.shape[1:])


def numbered(num_groups: int) -> tuple[str, ...]:
    """Return class names for classes without names: their numbers.

    >>> numbered(3)
    ('0', '1', '2')
    """
    return tuple(str(label) for label in range(num_groups))


def channels_first(images: np.ndarray) -> Tensor:
    """View images [n, height, width] or [n, height, width, channels] as [n, channels, height, width]."""
    tensor = torch.from_numpy(images)
    return tensor.unsqueeze(1) if tensor.dim() == 3 else tensor.permute(0, 3, 1, 2)

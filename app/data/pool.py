"""A data set in memory: examples as they were stored, bytes left as bytes.

Pixels stay uint8, a quarter of their size as floats, until a part of them is asked for, so a process that
serves many clients holds the data set once. Images that were stored channels-last keep that order in memory
behind their channels-first shape; a CPU's convolutions are faster with it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from strategies.core.dataset_examples import DatasetExamples, Source
from strategies.core.examples import Examples, TensorExamples

if TYPE_CHECKING:
    from app.data.columns import Columns

WHITE = 255
"""The byte that becomes 1.0."""


class Pixels(ABC):
    """Images that are decoded when they are asked for; stands for a tensor [n, channels, height, width]."""

    dtype = torch.uint8

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Number, channels, height and width."""

    @abstractmethod
    def __getitem__(self, index: Tensor) -> "Pixels":
        """Return the images at positions, or where a mask is true; nothing is decoded."""

    @abstractmethod
    def sized(self, size: int) -> "Pixels":
        """Return images that are scaled to squares when they are decoded."""

    @abstractmethod
    def read(self, index: Tensor) -> Tensor:
        """Return the images at positions, shape [k, channels, height, width], uint8."""

    @abstractmethod
    def fingerprint(self, index: Tensor) -> Iterator[bytes]:
        """Yield bytes that change with any of the images at positions."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Examples as they were stored.

    `x` are pixels, shape [n, channels, height, width], uint8, in memory or in files, or any inputs, shape
    [n, ...], float32; `y` are class labels, shape [n], int64, or numbers to be predicted, float32. `kind` is
    each example's label before several were made one class, `device` its device, from 0; both have shape [n],
    int64, and are None if the data have none.
    """

    x: Tensor | Pixels
    y: Tensor
    kind: Tensor | None = None
    device: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x.shape[1:])

    @property
    def stored(self) -> Tensor:
        """All inputs in memory, read for it if need be."""
        return self.x if isinstance(self.x, Tensor) else self.x.read(torch.arange(len(self)))

    def all(self) -> Examples:
        """Return all examples, with pixels scaled to [0, 1]; those in memory as a copy."""
        return self.take(np.arange(len(self)))

    def take(self, indices: np.ndarray) -> Examples:
        """Return the examples at positions, shape [k], int64, with pixels scaled to [0, 1].

        Those in memory are copied, those in files are decoded batch by batch.
        """
        index = torch.from_numpy(indices)
        if isinstance(self.x, Pixels):
            return DatasetExamples(self._source, index)
        x = self.x[index]
        return TensorExamples(x.float().div_(WHITE) if x.dtype == torch.uint8 else x, self.y[index])

    @cached_property
    def _source(self) -> Source:
        if isinstance(self.x, Tensor):
            raise TypeError("these examples are in memory")
        return _Files(self.x, self.y)


class _Files(Source):
    """Labelled images that are decoded when they are asked for."""

    def __init__(self, pixels: Pixels, labels: Tensor) -> None:
        self._pixels, self._labels = pixels, labels

    def __len__(self) -> int:
        return len(self._labels)

    def read(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self._pixels.read(index).float().div_(WHITE), self._labels[index]

    def known_targets(self) -> Tensor:
        return self._labels

    def fingerprint(self, index: Tensor) -> Iterator[bytes]:
        yield from self._pixels.fingerprint(index)
        yield self._labels[index].numpy().tobytes()


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set with the split that it came with; `test` is None if it came with none.

    `name` is used in messages and reports; `class_names` are in the order of the labels; `notes` tell how it
    was read; `columns` is the schema of a table.
    """

    name: str
    train: Pool
    test: Pool | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    columns: "Columns | None" = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example: (channels, height, width) for images."""
        return self.train.input_shape


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

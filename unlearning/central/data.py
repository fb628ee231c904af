"""The data that central functions take: `Examples`, or batches as of a `DataLoader`."""

from collections.abc import Iterable

import torch
from torch import Tensor

from strategies.core.examples import Examples, TensorExamples, concatenated

Data = Examples | Iterable[tuple[Tensor, Tensor]]
"""Examples, or batches (x of shape [n, ...], y of shape [n]), such as those of a `DataLoader`."""


def gathered(data: Data) -> Examples:
    """Return all examples of a set, in order; ValueError if a batch is not a pair of inputs and labels.

    `Examples` come back as they are. Batches are read once and kept in memory, with the order or augmentation
    of this one pass; the methods make batches of their own.

    Examples
    --------
    >>> gathered([(torch.zeros(2, 3), torch.tensor([0, 1])), (torch.ones(1, 3), torch.tensor([2]))]).y
    tensor([0, 1, 2])
    """
    if isinstance(data, Examples):
        return data
    parts = []
    for batch in data:
        try:
            x, y = batch
        except ValueError:
            raise ValueError(f"a batch is a pair (inputs, labels); got {len(batch)} parts") from None
        if y.dim() != 1:
            raise ValueError(f"the labels of a batch have shape [n]; got {list(y.shape)}")
        parts.append(TensorExamples(x.detach(), y.detach().long()))
    return concatenated(parts) if parts else TensorExamples(torch.zeros(0), torch.zeros(0, dtype=torch.int64))

"""Layers that normalise over the batch, marked with what becomes of their statistics in a federation.

- `Local`: affine parameters and statistics stay with each client (FedBN: Li, Jiang, Zhang, Kamp, Dou, "FedBN:
  Federated Learning on Non-IID Features via Local Batch Normalization", ICLR 2021, arXiv 2102.07623).
- `Recalibrated`: training normalises by each batch's own statistics and leaves the running ones alone; the
  server sets those from data of its own (`recalibrated`).
- `Frozen`: the affine parameters are not trained, so the layer always normalises by its statistics, which
  stay as they are: part of a frozen body.

A layer keeps its class, its names and its hooks: its class is replaced by a subclass that has the mark.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from strategies.core.examples import Examples, on_device
from strategies.task import CLASSIFICATION, Task

_BATCH = 512
_FEWEST = 2


class Marked(_BatchNorm):
    """A batch norm that also takes one value per channel, which has no variance."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input, shape [n, channels, ...]; one value by the running statistics."""
        if not self.training or not self.by_statistics(input):
            return super().forward(input)
        self.training = False
        try:
            return super().forward(input)
        finally:
            self.training = True

    def by_statistics(self, input: Tensor) -> bool:
        """Whether the running statistics are used in training, too."""
        return input.numel() // max(1, input.shape[1]) < _FEWEST


class Local(Marked):
    """Affine parameters and statistics stay with the client."""


class Recalibrated(Marked):
    """The statistics are the server's; training leaves them as they are."""


class Frozen(Marked):
    """The statistics are part of a body that is not trained."""

    def by_statistics(self, input: Tensor) -> bool:
        """Return true."""
        return True


_SUBCLASSES: dict[tuple[type[Marked], type[_BatchNorm]], type[_BatchNorm]] = {}


def _subclass(kind: type[Marked], base: type[_BatchNorm]) -> type[_BatchNorm]:
    """Return the class of a marked layer: one for each pair, so that copies have it as well."""
    if (kind, base) not in _SUBCLASSES:
        _SUBCLASSES[kind, base] = type(f"{kind.__name__}{base.__name__}", (kind, base), {})
    return _SUBCLASSES[kind, base]


def mark(layer: _BatchNorm, kind: type[Marked]) -> None:
    """Mark a layer, in place."""
    layer.__class__ = _subclass(kind, type(layer))
    if kind is Recalibrated:
        layer.track_running_stats = False  # In training only: evaluation reads them while they are there


def recalibrated(
    model: nn.Module, examples: Examples, task: Task = CLASSIFICATION, batch_size: int = _BATCH
) -> nn.Module:
    """Set the statistics of the `Recalibrated` layers to those of the examples, in place; return the model.

    Each layer is measured while all of them normalise by their batch's statistics, as in training. The mean
    is that of all values of a channel, the variance the unbiased one, as torch keeps it; both are summed up
    in float64, batch after batch. A model without such layers is left as it is.

    Parameters
    ----------
    examples
        At least two; the targets are not read.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, Recalibrated)]
    if not layers:
        return model
    device = next(model.parameters()).device
    sums = [Moments(layer.num_features) for layer in layers]
    with torch.no_grad(), _batch_statistics(model, layers, sums):
        for inputs, _ in examples.batches(batch_size):
            task.forward(model, on_device(inputs, device))
    for layer, total in zip(layers, sums, strict=True):
        total.put_into(layer)
    return model


class Moments:
    """n, Σx and Σx² of every channel."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.sums = torch.zeros(2, channels, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Add the values of a batch, shape [n, channels, ...]."""
        flat = values.detach().transpose(0, 1).flatten(1).double().cpu()  # [channels, m]
        self.count += flat.shape[1]
        self.sums += torch.stack([flat.sum(dim=1), flat.square().sum(dim=1)])

    def put_into(self, layer: _BatchNorm) -> None:
        """Set a layer's running statistics."""
        if self.count < _FEWEST or layer.running_mean is None or layer.running_var is None:
            return
        mean = self.sums[0] / self.count
        variance = (self.sums[1] / self.count - mean.square()).clamp(min=0) * self.count / (self.count - 1)
        with torch.no_grad():
            layer.running_mean.copy_(mean)
            layer.running_var.copy_(variance)


@contextmanager
def _batch_statistics(model: nn.Module, layers: list[Recalibrated], sums: list[Moments]) -> Iterator[None]:
    """Have the layers normalise by batch and add up what they are given; all else evaluates."""
    was_training = model.training
    model.eval()
    hooks = [
        layer.register_forward_pre_hook(_adding_to(total)) for layer, total in zip(layers, sums, strict=True)
    ]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)


def _adding_to(total: Moments) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        total.add(inputs[0])

    return add

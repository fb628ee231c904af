"""Ragged clients of a small network: some have an epoch of several steps, some of a short one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from app.models.built_in import mlp
from strategies.core.examples import TensorExamples
from strategies.core.seeds import seeded_layers, torch_generator

SIZES = (12, 7, 1, 9)
"""With batches of four: three steps an epoch, two with a short one, one, three with a short one."""


def network(dropout: float | None = None) -> nn.Module:
    """Return the model that all clients begin with, of 6 inputs and 3 outputs."""
    with seeded_layers(torch_generator(0, "network")):
        return mlp((6, 8), 3, "fc2", dropout)


def data(size: int, seed: int, shape: Sequence[int] = (6,)) -> TensorExamples:
    """Return a client's examples, of three classes."""
    generator = torch_generator(seed, "data")
    x = torch.randn(size, *shape, generator=generator)
    return TensorExamples(x, torch.randint(0, 3, (size,), generator=generator))


def flat(model: nn.Module) -> Tensor:
    """Return a model's parameters, shape [P]."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])

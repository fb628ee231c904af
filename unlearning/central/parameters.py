"""A model's trainable parameters as one flat vector, and copies of models.

"Flat" means a vector of all trainable parameters in the order of `model.named_parameters()`, in the model's
own dtype, on the CPU. For models without floating buffers that is the order of `strategies.core.wire.Layout`
as well.
"""

import copy
import math

import torch
from torch import Tensor, nn

from strategies.models.mask import hold, masks_of

_PIECE = 1 << 20
"""Entries that are converted at a time."""
_WITH_WEIGHTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that training changes, by name, in the model's order; each once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of a model, on its device and in its mode, without gradients; it holds the same masks."""
    twin = copy.deepcopy(model)  # a deep copy of a parameter has no gradient and no hook
    return hold(twin, masks_of(twin))


def flat_parameters(model: nn.Module) -> Tensor:
    """Return the trainable parameters as a new vector, shape [P]."""
    return torch.cat([p.detach().reshape(-1).cpu() for p in trainable(model).values()])


def split_like(flat: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """Return views of a flat vector, by name, in the parameters' shapes.

    ValueError if its length is another.
    """
    parameters = trainable(model)
    size = sum(p.numel() for p in parameters.values())
    if flat.shape != (size,):
        raise ValueError(
            f"expected shape ({size},), one entry per trainable parameter, got {tuple(flat.shape)}"
        )
    pieces = torch.split(flat, [p.numel() for p in parameters.values()])
    return {name: piece.view(p.shape) for (name, p), piece in zip(parameters.items(), pieces, strict=True)}


def load_parameters(model: nn.Module, flat: Tensor) -> None:
    """Copy a flat vector into a model's trainable parameters, in place; each keeps its dtype and device."""
    pieces = split_like(flat, model)
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(pieces[name])


def moved(model: nn.Module, step: Tensor) -> nn.Module:
    """Return a copy of a model whose trainable parameters are moved by a flat step, added in float64."""
    twin = copied(model)
    load_parameters(twin, flat_parameters(model).double() + step.double())
    return twin


def with_norm(vector: Tensor, norm: float) -> Tensor:
    """Return a vector scaled to a norm of at least 0; a zero vector has no direction and stays zero."""
    pieces = torch.split(vector, _PIECE)
    length = math.hypot(*(float(torch.linalg.vector_norm(piece.double())) for piece in pieces))
    scaled = torch.zeros_like(vector)
    if length:
        for place, piece in zip(torch.split(scaled, _PIECE), pieces, strict=True):
            place.copy_(piece.double() * (norm / length))
    return scaled


def layers_with_weights(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the convolutions and linear layers with trainable weights, in the model's order.

    A weight that several layers share counts for the first.
    """
    weights = trainable(model).keys()
    return tuple(
        name
        for name, module in model.named_modules()
        if isinstance(module, _WITH_WEIGHTS) and f"{name}.weight".lstrip(".") in weights
    )

"""Masks of pruned models: which weights are kept, by parameter name, and how training respects them.

A mask is a boolean tensor of its parameter's shape, True where the weight is kept. Parameters without a
mask, such as biases, are dense. Masks stay outside the model, so that its state keeps the names and shapes
that travel and that the update log knows.
"""

import torch
from torch import Tensor, nn

from strategies.client.training import GradientAdjustment, Tensors
from strategies.models.mask import masks_of
from unlearning.central.parameters import copied, trainable

Masks = dict[str, Tensor]


def sparsity(masks: Masks) -> float:
    """Return the share of masked weights that are pruned, in [0, 1]; neutral 0."""
    total = sum(mask.numel() for mask in masks.values())
    return 1.0 - sum(int(mask.sum()) for mask in masks.values()) / total if total else 0.0


def masked(model: nn.Module, masks: Masks) -> nn.Module:
    """Return a copy of a model with its pruned weights set to zero.

    ValueError if a mask fits no trainable parameter by name and shape.
    """
    twin = copied(model)
    apply_masks(twin, masks)
    return twin


def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Set the pruned weights of a model to zero, in place; errors as in `masked`."""
    parameters = trainable(model)
    for name, mask in masks.items():
        if name not in parameters or parameters[name].shape != mask.shape:
            raise ValueError(
                f"the mask {name!r} of shape {tuple(mask.shape)} fits no trainable parameter of the model"
            )
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].mul_(mask.to(parameters[name].device))


def flat_mask(model: nn.Module, masks: Masks | None) -> Tensor:
    """Return which trainable parameters are free to change, shape [P], bool; without masks, all.

    Masks that the model itself holds (see `strategies.models.mask`) count as well.
    """
    ones = {name: torch.ones(p.shape, dtype=torch.bool) for name, p in trainable(model).items()}
    kept = {**ones, **(masks or {})}
    free = {name: kept[name].cpu() & mask.cpu() for name, mask in masks_of(model).items()}
    return torch.cat([free.get(name, kept[name]).reshape(-1).cpu() for name in ones])


def mask_adjustment(model: nn.Module, masks: Masks) -> GradientAdjustment:
    """Return the adjustment that clears the gradients of pruned weights.

    A zero weight with a zero gradient stays zero under SGD, with momentum and weight decay as well, and under
    Adam and AdamW.
    """
    aligned = [masks.get(name) for name in trainable(model)]

    def adjust(parameters: Tensors, gradients: Tensors) -> Tensors:
        pairs = zip(gradients, aligned, strict=True)
        return [g if mask is None else g * mask.to(g.device) for g, mask in pairs]

    return adjust

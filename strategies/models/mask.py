"""The mask of a pruned model: how it travels, and how a model holds on to it.

A mask is flat, a boolean per scalar of a `Layout`, False where the scalar is pruned and so zero; or by
parameter, for those parameters that are pruned at all. It travels as packed bits, compressed: a hundredth of
the model it belongs to.

A model that holds its masks cannot lose them, whatever trains it: the gradient of a pruned weight is zero,
and a zero weight with a zero gradient stays zero under SGD, with momentum and weight decay as well, and under
Adam and AdamW. So no strategy and no forgetting method needs to know of masks.
"""

import zlib
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from strategies.core.wire import Layout

_SUFFIX = "_kept"


def flat_mask_of(masks: Mapping[str, Tensor], layout: Layout) -> Tensor:
    """Return masks by parameter as one flat mask, shape [layout.size], bool; what has no mask is kept.

    Raises
    ------
    ValueError
        If a mask fits no entry of the layout by name and shape.
    """
    shapes = dict(zip(layout.names, layout.shapes, strict=True))
    for name, mask in masks.items():
        if shapes.get(name) != tuple(mask.shape):
            raise ValueError(f"the mask {name!r} of shape {tuple(mask.shape)} fits no parameter of the model")
    kept = {name: masks.get(name, torch.ones(shape, dtype=torch.bool)) for name, shape in shapes.items()}
    return torch.cat([mask.bool().reshape(-1) for mask in kept.values()])


def masks_in(mask: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Return the masks of the parameters that a flat mask prunes, by name, in the parameters' shapes."""
    return {name: piece for name, piece in layout.unflatten(mask).items() if not bool(piece.all())}


def pack(mask: Tensor) -> bytes:
    """Return a flat mask as it travels."""
    return zlib.compress(np.packbits(mask.numpy()).tobytes(), 9)


def unpack(data: bytes, size: int) -> Tensor:
    """Return the flat mask that `pack` was given, shape [size], bool.

    Raises
    ------
    ValueError
        If the bytes are no mask of that size.
    """
    num_bytes = -(-size // 8)
    try:
        bits = zlib.decompressobj().decompress(data, num_bytes + 1)
    except zlib.error as error:
        raise ValueError(f"the mask is damaged: {error}") from None
    if len(bits) != num_bytes:
        raise ValueError(f"the mask has {len(bits)} bytes, expected {num_bytes} for {size} parameters")
    return torch.from_numpy(np.unpackbits(np.frombuffer(bits, np.uint8), count=size)).bool()


def hold(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Set the pruned weights of a model to zero and let nothing train them; returns the model.

    Masks are kept as buffers outside of the model's state, so its names and shapes stay what they were. A
    deep copy of the model has the masks, but not the hooks that clear the gradients: hold them anew there.

    Parameters
    ----------
    masks
        By parameter's name, in its shape; none leaves the model as it is.

    Raises
    ------
    ValueError
        If a mask has another shape than its parameter.
    """
    for name, mask in masks.items():
        layer_name, _, own_name = name.rpartition(".")
        layer = model.get_submodule(layer_name)
        parameter = layer.get_parameter(own_name)
        if parameter.shape != mask.shape:
            raise ValueError(
                f"the mask {name!r} has shape {tuple(mask.shape)}, expected {tuple(parameter.shape)}"
            )
        layer.register_buffer(own_name + _SUFFIX, mask.to(parameter.device), persistent=False)
        with torch.no_grad():
            parameter.mul_(layer.get_buffer(own_name + _SUFFIX))
        # Looked up anew for every gradient: the buffer moves with the model from device to device
        parameter.register_hook(partial(_cleared, layer, own_name + _SUFFIX))  # type: ignore[no-untyped-call]
    return model


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the masks that a model holds, by parameter's name; none for a dense model."""
    buffers = model.named_buffers()
    return {name.removesuffix(_SUFFIX): mask for name, mask in buffers if name.endswith(_SUFFIX)}


def _cleared(layer: nn.Module, name: str, gradient: Tensor) -> Tensor:
    return gradient * layer.get_buffer(name)

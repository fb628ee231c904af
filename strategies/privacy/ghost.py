"""Opacus' ghost clipping with norms for convolutions and group norms; Opacus has those of linear layers.

For other layers Opacus forms the gradient of every example, and that of a convolution through an unfolding
that reads its input as if it were laid out channels-first (Opacus 1.6, `unfold2d`). Where it is laid out
otherwise, as in the convolutional model here, those gradients, their norms and with them the clipping are
wrong, and no noise makes up for an example that counts too much. The norms here are those of one example at a
time in any layout:

- convolution: with U_i the unfolded input of example i, [ck², l], and B_i what comes back, [o, l], the
  gradients are B_i U_iᵀ, one batched product per layer, reduced at once;
- group norm: the gradients of weight and bias are sums over positions, shape [c].
"""

from collections.abc import Callable, Sequence
from typing import final

import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from torch import Tensor, nn
from torch.nn import functional

from strategies.errors import BadInput
from strategies.subnetwork import PartialGroupNorm

NormSampler = Callable[..., dict[Tensor, Tensor]]
"""From a layer, its inputs and what comes back to the norms of each parameter's gradients, shape [n]."""


@final
class GhostModule(GradSampleModuleFastGradientClipping):
    """A module whose backward pass leaves the norm of each example's gradient."""


def conv2d_norms(layer: nn.Conv2d, inputs: Sequence[Tensor], returned: Tensor) -> dict[Tensor, Tensor]:
    """Return the norms of a convolution's gradients.

    Parameters
    ----------
    layer
        Without groups, padded with zeros by numbers.
    inputs
        Its one input, shape [n, c, h, w].
    returned
        Gradient of each example's loss by the layer's output, shape [n, o, h', w'].

    Raises
    ------
    BadInput
        If the convolution is of another kind.
    """
    if layer.groups != 1 or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        raise BadInput(f"{layer}: no norms of single examples for grouped or specially padded convolutions")
    back = returned.flatten(2)  # [n, o, l]
    norms: dict[Tensor, Tensor] = {}
    if layer.weight.requires_grad:
        unfolded = functional.unfold(
            inputs[0].contiguous(), layer.kernel_size, layer.dilation, layer.padding, layer.stride
        )
        norms[layer.weight] = _norms(torch.bmm(back, unfolded.transpose(1, 2)))  # [n, o, ck²]
    if layer.bias is not None and layer.bias.requires_grad:
        norms[layer.bias] = _norms(back.sum(dim=2))
    return norms


def group_norm_norms(
    layer: nn.GroupNorm | PartialGroupNorm, inputs: Sequence[Tensor], returned: Tensor
) -> dict[Tensor, Tensor]:
    """Return the norms of a group norm's gradients; inputs and what comes back have shape [n, c, …]."""
    back = returned.reshape(*returned.shape[:2], -1)  # [n, c, l]
    norms: dict[Tensor, Tensor] = {}
    if layer.weight.requires_grad:
        if isinstance(layer, PartialGroupNorm):
            normal = layer.normal(inputs[0])
        else:
            normal = functional.group_norm(inputs[0], layer.num_groups, eps=layer.eps)
        norms[layer.weight] = _norms((normal.reshape(back.shape) * back).sum(dim=2))
    if layer.bias.requires_grad:
        norms[layer.bias] = _norms(back.sum(dim=2))
    return norms


def _norms(gradients: Tensor) -> Tensor:
    """Return the norm of each example's gradient, shape [n]."""
    norms: Tensor = torch.linalg.vector_norm(gradients.flatten(1), dim=1)
    return norms


GhostModule.NORM_SAMPLERS = {
    **GradSampleModuleFastGradientClipping.NORM_SAMPLERS,
    nn.Conv2d: conv2d_norms,
    nn.GroupNorm: group_norm_norms,
    PartialGroupNorm: group_norm_norms,
}

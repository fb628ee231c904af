"""The gradient of each example for each kind of layer: Opacus' samplers, and ours where those do not hold.

A sampler gets a layer, its input [n, …] and what comes back to its output [n, …], and returns for each
parameter the examples' gradients, [n, *shape]. `GRAD_SAMPLERS` looks into our own table first and then into
Opacus' registry, where a user's own samplers lie too; the registry itself is not altered, so that Opacus
works as ever beside this. Ours differ from those of Opacus 1.6 in that

- convolutions take inputs in any memory layout, with any padding (`unfold2d` reads channels-last inputs
  wrongly, and padding that is not of zeros is taken for zeros), and groups cost what they should;
- a layer norm may have no bias;
- rows of an embedding at `padding_idx` have no gradient;
- a bag of embeddings takes rows of indices, [n, l].
"""

from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.embedding import compute_embedding_grad_sample
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from strategies.models.subnetwork import PartialGroupNorm

Gradients = Mapping[Tensor, Tensor]
"""By parameter the gradient of each example, [n, *shape]."""
Sampler = Callable[[Any, Sequence[Tensor], Tensor], Gradients]


def _convolution(layer: _ConvNd, activations: Sequence[Tensor], back: Tensor) -> Gradients:
    """Return the gradients of a convolution over any number of dimensions; `back` has shape [n, o, …]."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    seen = functional.pad(activations[0], layer._reversed_padding_repeated_twice, mode=mode)
    how = zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
    for dim, (size, step, far) in enumerate(how, start=2):
        seen = seen.unfold(dim, far * (size - 1) + 1, step)[..., ::far]  # [n, c, l…, k…] in the end
    n, groups = len(back), layer.groups
    rows = back.reshape(n, groups, layer.out_channels // groups, -1)  # [n, g, o/g, l]
    columns = seen.reshape(n, groups, layer.in_channels // groups, rows.shape[-1], -1)  # [n, g, c/g, l, k]
    found: dict[Tensor, Tensor] = {}
    if layer.weight.requires_grad:
        found[layer.weight] = torch.einsum("ngol,ngclk->ngock", rows, columns).reshape(n, *layer.weight.shape)
    if layer.bias is not None:
        found[layer.bias] = rows.sum(dim=3).flatten(1)
    return found


def _layer_norm(layer: nn.LayerNorm, activations: Sequence[Tensor], back: Tensor) -> Gradients:
    normal = functional.layer_norm(activations[0], layer.normalized_shape, eps=layer.eps)
    between = tuple(range(1, back.dim() - len(layer.normalized_shape)))
    found: dict[Tensor, Tensor] = {layer.weight: _summed(normal * back, between)}
    if layer.bias is not None:
        found[layer.bias] = _summed(back, between)
    return found


def _summed(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    return values.sum(dim=dims) if dims else values


def _partial_group_norm(layer: PartialGroupNorm, activations: Sequence[Tensor], back: Tensor) -> Gradients:
    columns = back.flatten(2) if back.dim() > 2 else back[..., None]  # [n, c, l]
    normal = layer.normal(activations[0]).reshape(columns.shape)
    return {layer.weight: (normal * columns).sum(dim=2), layer.bias: columns.sum(dim=2)}


def _embedding(layer: nn.Embedding, activations: Sequence[Tensor], back: Tensor) -> Gradients:
    index = activations[0]
    found: Gradients = compute_embedding_grad_sample(layer, [index], without_padding(layer, index, back))
    return found


def without_padding(layer: nn.Embedding | nn.EmbeddingBag, index: Tensor, back: Tensor) -> Tensor:
    """Return what comes back to an embedding, [n, …, d], with zeros where the index, [n, …], is padding."""
    if layer.padding_idx is None:
        return back
    return back.masked_fill((index == layer.padding_idx).unsqueeze(-1), 0.0)


def _embedding_bag(layer: nn.EmbeddingBag, activations: Sequence[Tensor], back: Tensor) -> Gradients:
    index = activations[0]  # [n, l]
    each = without_padding(layer, index, back[:, None, :].expand(*index.shape, -1))
    if layer.mode == "mean":
        counted = index.new_ones(index.shape) if layer.padding_idx is None else index != layer.padding_idx
        each = each / counted.sum(dim=1).clamp(min=1)[:, None, None]
    found: Gradients = compute_embedding_grad_sample(layer, [index], each)
    return found


_OWN: MutableMapping[type[nn.Module], Sampler] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    nn.LayerNorm: _layer_norm,
    PartialGroupNorm: _partial_group_norm,
    nn.Embedding: _embedding,
    nn.EmbeddingBag: _embedding_bag,
}
GRAD_SAMPLERS: MutableMapping[type[nn.Module], Sampler] = ChainMap(_OWN, GradSampleModule.GRAD_SAMPLERS)
"""What samples a layer of exactly this type; others are differentiated by `by_functorch`."""


def by_functorch(
    layer: nn.Module, given: Sequence[Tensor], named: Mapping[str, Tensor], back: Tensor
) -> Gradients:
    """Return the gradients of any layer, with all that is in it, by running it again on each example.

    Parameters
    ----------
    given, named
        Its inputs by position and by name, [n, …] each.
    back
        What comes back to its output, [n, …].

    Raises
    ------
    RuntimeError
        If the layer draws random numbers or does what `torch.func.vmap` cannot do.
    """
    trained = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    fixed = {name: p.detach() for name, p in layer.named_parameters() if not p.requires_grad}
    fixed |= dict(layer.named_buffers())

    def weighed(
        parameters: dict[str, Tensor], one: Sequence[Tensor], by_name: Mapping[str, Tensor], weight: Tensor
    ) -> Tensor:
        single = tuple(tensor.unsqueeze(0) for tensor in one)
        keywords = {name: tensor.unsqueeze(0) for name, tensor in by_name.items()}
        output: Tensor = functional_call(layer, parameters | fixed, single, keywords)
        return (output.squeeze(0) * weight).sum()

    detached = {name: p.detach() for name, p in trained.items()}
    each = vmap(grad(weighed), in_dims=(None, 0, 0, 0))(detached, tuple(given), dict(named), back)
    return {trained[name]: gradients for name, gradients in each.items()}

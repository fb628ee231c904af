"""Rules for one backward pass: norms of the examples' gradients, and their weighted sum once norms are known.

With a layer's input A_i and what comes back to its output, B_i, for example i:

- linear layer: g_i = B_i A_iᵀ; for one vector per example ‖g_i‖ = ‖a_i‖ ‖b_i‖ and the sum is one product;
- convolution: g_i = B_i U_iᵀ with U_i the unfolded input, [k²c, l], in any memory layout;
- group norm: the gradients of weight and bias are sums over positions, shape [c];
- embedding: the rows of B_i are added up by their index; no other row of the table has a gradient.

Where an example has several vectors its gradient is formed, for some examples at a time if it is large, and
not ‖g_i‖² = ⟨A_iᵀA_i, B_iᵀB_i⟩, which cancels in float32 and could so come out too small. Norm and sum are
made of the same A_i and B_i, so no example counts more than the clip norm.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeGuard, cast

import torch
from opacus.layers.dp_rnn import RNNLinear
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from strategies.layers.privacy.samplers import GRAD_SAMPLERS, without_padding
from strategies.models.subnetwork import PartialGroupNorm

_DENSE = 8
"""With so many channels or more, products of shifted inputs are faster than those of patches."""
_KEPT_ENTRIES = 2**23
"""Up to so many entries the examples' gradients of a layer are held from their norms to their sum."""


@dataclass(frozen=True)
class Share:
    """A parameter, its gradient's norm per example, [n], and the weighted sum of these as a function."""

    parameter: Tensor
    norms: Tensor
    total: Callable[[Tensor], Tensor]


Rule = Callable[[Any, Tensor, Tensor], Iterator[Share]]
"""From a layer, its input and what comes back to its output to the shares of its trainable parameters."""


def rule_of(layer: nn.Module) -> Rule | None:
    """Return the rule for a layer; None if there is none."""
    if type(layer) is nn.Conv2d and not _is_plain(layer):
        return None
    return _RULES.get(type(layer))


def takes_turns(layer: nn.Module) -> bool:
    """Return whether several turns of a layer are as good as one with longer sequences."""
    return type(layer) in (nn.Linear, RNNLinear)


def merged(turns: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return (input, what comes back) of all turns of a linear layer as of one, with sequences, [n, l, …]."""
    if len(turns) == 1:
        return turns[0]
    given, back = zip(*turns, strict=True)
    return _sequences(given), _sequences(back)


def _sequences(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([t[:, None] if t.dim() == 2 else t.flatten(1, -2) for t in tensors], dim=1)


def _is_plain(layer: nn.Conv2d) -> bool:
    return layer.groups == 1 and not isinstance(layer.padding, str) and layer.padding_mode == "zeros"


def _linear(layer: nn.Linear, given: Tensor, back: Tensor) -> Iterator[Share]:
    """Yield the shares of a linear layer; its input has shape [n, …, p], what comes back [n, …, o]."""
    if _trains(layer.weight):
        if back.dim() == 2:
            norms = torch.linalg.vector_norm(given, dim=1) * torch.linalg.vector_norm(back, dim=1)
            yield Share(layer.weight, norms, lambda weights: (weights[:, None] * back).T @ given)
        else:
            right, left = given.flatten(1, -2), back.flatten(1, -2).mT  # [n, l, p], [n, o, l]
            if _fits(layer.weight, len(back)):
                yield formed(layer.weight, torch.bmm(left, right))
            else:
                yield Share(
                    layer.weight,
                    _product_norms(left, right),
                    lambda weights: torch.einsum("n,nol,nlp->op", weights, left, right),
                )
    if _trains(layer.bias):
        yield formed(layer.bias, back.reshape(len(back), -1, back.shape[-1]).sum(dim=1))


def _convolution(layer: nn.Conv2d, given: Tensor, back: Tensor) -> Iterator[Share]:
    """Yield the shares of a convolution; its input has shape [n, c, h, w], what comes back [n, o, h', w']."""
    rows = back.flatten(2).mT  # [n, l, o]
    weight = layer.weight
    if _trains(weight):
        if _fits(weight, len(back)):
            how_formed = shifted_products if _is_dense(layer) else patch_products
            yield formed(weight, how_formed(given, layer, back), lambda total: total.permute(3, 2, 0, 1))
        else:
            left = patches(given, layer).mT  # [n, k²c, l]
            how = layer.stride, layer.padding, layer.dilation
            yield Share(
                weight,
                _product_norms(left, rows),
                lambda weights: conv2d_weight(  # type: ignore[no-untyped-call]
                    given, weight.shape, weights.view(-1, 1, 1, 1) * back, *how
                ),
            )
    if _trains(layer.bias):
        yield formed(layer.bias, rows.sum(dim=1))


def _is_dense(layer: nn.Conv2d) -> bool:
    return layer.stride == (1, 1) and layer.in_channels >= _DENSE


def patch_products(given: Tensor, layer: nn.Conv2d, back: Tensor) -> Tensor:
    """Return the examples' gradients of a convolution's weight, [n, k, k, c, o]."""
    out, channels, *kernel = layer.weight.shape
    return torch.bmm(patches(given, layer).mT, back.flatten(2).mT).view(-1, *kernel, channels, out)


def shifted_products(given: Tensor, layer: nn.Conv2d, back: Tensor) -> Tensor:
    """Return the same for a stride of 1, with one product for each place in the kernel, without copies.

    With its rows laid end to end, what all positions see at one place of the kernel is a stretch of the
    padded input; between the rows, where no position is, what comes back is filled with zeros.
    """
    (n, channels, height, width), (out, tall, wide) = given.shape, back.shape[1:]
    (top, left), (down, right) = cast("tuple[int, int]", layer.padding), layer.dilation
    row = width + 2 * left
    size = (height + 2 * top) * row
    flat = given.new_zeros(n, size + right * layer.kernel_size[1], channels)
    framed = flat[:, :size].view(n, -1, row, channels)
    framed[:, top : top + height, left : left + width] = given.permute(0, 2, 3, 1)
    filled = back.new_zeros(n, tall, row, out)
    filled[:, :, :wide] = back.permute(0, 2, 3, 1)
    rows = filled.flatten(1, 2)  # [n, tall · row, o]
    products = given.new_empty(n, *layer.kernel_size, channels, out)
    for i, j in product(*map(range, layer.kernel_size)):
        first = i * down * row + j * right
        torch.bmm(flat[:, first : first + rows.shape[1]].mT, rows, out=products[:, i, j])
    return products


def patches(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Return what a convolution sees at each position, [n, l, k²c], from its input, [n, c, h, w].

    The channels of a pixel are copied together, in a fraction of the time of `torch.nn.functional.unfold`,
    whose order is [n, ck², l].
    """
    (tall, wide), (down, right) = cast("tuple[int, int]", layer.padding), layer.stride
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, wide, wide, tall, tall))  # [n, h, w, c]
    spans = [far * (k - 1) + 1 for far, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    windows = padded.unfold(1, spans[0], down).unfold(2, spans[1], right)  # [n, h', w', c, span, span]
    seen = windows[..., :: layer.dilation[0], :: layer.dilation[1]].permute(0, 1, 2, 4, 5, 3)
    return seen.reshape(len(x), seen.shape[1] * seen.shape[2], -1)


def _group_norm(layer: nn.GroupNorm | PartialGroupNorm, given: Tensor, back: Tensor) -> Iterator[Share]:
    """Yield the shares of a group norm; its input and what comes back have shape [n, c, …]."""
    columns = back.reshape(*back.shape[:2], -1)  # [n, c, l]
    if _trains(layer.weight):
        if isinstance(layer, PartialGroupNorm):
            normal = layer.normal(given)
        else:
            normal = functional.group_norm(given, layer.num_groups, eps=layer.eps)
        yield formed(layer.weight, (normal.reshape(columns.shape) * columns).sum(dim=2))
    if _trains(layer.bias):
        yield formed(layer.bias, columns.sum(dim=2))


def _embedding(layer: nn.Embedding, given: Tensor, back: Tensor) -> Iterator[Share]:
    """Yield the share of an embedding; its input has shape [n, …], int64, what comes back [n, …, d]."""
    n, rows = len(given), len(layer.weight)
    parts = without_padding(layer, given, back).reshape(-1, layer.embedding_dim)  # [nl, d]
    places = torch.arange(n, device=given.device)[:, None] * rows + given.reshape(n, -1)  # [n, l]
    used, position = torch.unique(places, return_inverse=True)  # example · rows + row, each once
    sums = parts.new_zeros(len(used), layer.embedding_dim).index_add(0, position.flatten(), parts)
    owner, row = used // rows, used % rows
    squares = parts.new_zeros(n).index_add(0, owner, sums.square().sum(dim=1))
    yield Share(
        layer.weight,
        squares.sqrt(),
        lambda weights: torch.zeros_like(layer.weight).index_add(0, row, weights[owner, None] * sums),
    )


_RULES: Mapping[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    RNNLinear: _linear,
    nn.Conv2d: _convolution,
    nn.GroupNorm: _group_norm,
    PartialGroupNorm: _group_norm,
    nn.Embedding: _embedding,
}


def _norms(layer: nn.Module, activations: list[Tensor], back: Tensor) -> dict[Tensor, Tensor]:
    """Return the norms of the examples' gradients by parameter, [n], as Opacus asks for them."""
    rule = rule_of(layer)
    if rule is not None:
        return {share.parameter: share.norms for share in rule(layer, activations[0], back)}
    sampled = GRAD_SAMPLERS[type(layer)](layer, activations, back)
    return {p: torch.linalg.vector_norm(g.flatten(1), dim=1) for p, g in sampled.items()}


# An RNN's layers take turns, which Opacus adds up as gradients
NORM_SAMPLERS = dict.fromkeys(_RULES.keys() - {RNNLinear}, _norms)
"""By type of layer what gives the norms of the examples' gradients, for ghost clipping."""


def _trains(parameter: Tensor | None) -> TypeGuard[Tensor]:
    return parameter is not None and parameter.requires_grad


def _fits(parameter: Tensor, count: int) -> bool:
    return count * parameter.numel() <= _KEPT_ENTRIES


def formed(
    parameter: Tensor, gradients: Tensor, arrange: Callable[[Tensor], Tensor] = lambda total: total
) -> Share:
    """Return the share of gradients that are there, [n, …], and whose sum is the parameter's if arranged."""
    flat, shape = gradients.flatten(1), gradients.shape[1:]
    norms = torch.linalg.vector_norm(flat, dim=1)
    return Share(parameter, norms, lambda weights: arrange((weights @ flat).view(shape)))


def _product_norms(left: Tensor, right: Tensor) -> Tensor:
    """Return the norms of the products [n, a, l] · [n, l, b], formed for some examples at a time."""
    at_once = max(1, _KEPT_ENTRIES // (left.shape[1] * right.shape[2]))
    norms = [
        torch.linalg.vector_norm(
            torch.bmm(left[first : first + at_once], right[first : first + at_once]), dim=(1, 2)
        )
        for first in range(0, len(left), at_once)
    ]
    return torch.cat(norms)

"""The clipped sum of the examples' gradients from one backward pass: book-keeping.

Bu, Wang, Zha, Karypis, "Differentially Private Optimization on Large Model at Small Cost", ICML 2023,
arXiv 2210.00038. The backward pass forms no gradient of a parameter, only what comes back to each layer's
output, B_i for example i. With the layer's input A_i it gives the norm of the example's gradient g_i, and the
sum when all norms are known:

    Σ_i c_i g_i,   c_i = min(1, C / (‖g_i‖ + 1e-6))

- linear layer: g_i = B_i A_iᵀ; for one vector per example ‖g_i‖ = ‖a_i‖ ‖b_i‖ and the sum is one product;
- convolution: g_i = B_i U_iᵀ with U_i the unfolded input, [k²c, l], in any memory layout;
- group norm: the gradients of weight and bias are sums over positions, shape [c].

Differs from the paper: where an example has several vectors its gradient is formed, for some examples at a
time if it is large, and not ‖g_i‖² = ⟨A_iᵀA_i, B_iᵀB_i⟩, which cancels in float32 and could so come out too
small. Frozen parameters count for nothing. Infinite C is plain training on the sum of the losses.

Norm and sum are made of the same A_i and B_i, so none counts more than C, whatever the layers do, as long as
nothing mixes examples.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeGuard, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight
from torch.utils.hooks import RemovableHandle

from strategies.core.errors import BadInput
from strategies.models.subnetwork import PartialGroupNorm

_KEPT_ENTRIES = 2**23
"""Up to so many entries the examples' gradients of a layer are held from their norms to their sum."""


@dataclass(frozen=True)
class _Share:
    """A parameter, its gradient's norm per example, [n], and the weighted sum of these as a function."""

    parameter: Tensor
    norms: Tensor
    total: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Record:
    """A layer's input and output, and their in-place versions at that time."""

    given: Tensor
    output: Tensor
    versions: tuple[int, int]


@final
class ClippedSum:
    """Within its context, leaves the clipped sum of the examples' gradients in a model's `.grad`.

    Parameters
    ----------
    model
        Maps [n, …] to something of each example; is left without hooks at the end of the context.
    clip_norm
        C, above 0.

    Raises
    ------
    BadInput
        If a trainable parameter belongs to something else than one linear layer, convolution or group norm.
    """

    def __init__(self, model: nn.Module, clip_norm: float) -> None:
        self._layers = _trainable_layers(model)
        self._clip_norm = clip_norm
        self._records: dict[nn.Module, _Record] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "ClippedSum":
        """Listen to the layers."""
        # Before all other hooks, to get the layer's own output.
        self._handles = [layer.register_forward_hook(self._record, prepend=True) for layer in self._layers]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()
        self._records.clear()

    def backward(self, losses: Tensor) -> None:
        """Set the gradient of every trainable parameter to the clipped sum.

        Parameters
        ----------
        losses
            Of each example, [n], n at least 1, from the model's last forward pass.

        Raises
        ------
        BadInput
            If a layer had more than one turn in the forward pass, did not see the examples one by one, or
            its input or output was changed in place.
        """
        parameters = [p for layer in self._layers for p in layer.parameters(recurse=False)]
        for parameter in parameters:
            parameter.grad = None
        records, self._records = self._records, {}
        for layer, record in records.items():
            _require_examples(self._layers[layer], record, len(losses))
        outputs = [record.output for record in records.values()]
        returned: Sequence[Tensor | None] = torch.autograd.grad(losses.sum(), outputs, allow_unused=True)
        shares = [
            share
            for (layer, record), back in zip(records.items(), returned, strict=True)
            if back is not None
            for share in _SHARES[type(layer)](layer, record.given, back)
        ]
        norms = torch.linalg.vector_norm(torch.stack([share.norms for share in shares]), dim=0)  # [n]
        weights = (self._clip_norm / (norms + 1e-6)).clamp(max=1.0)  # as Opacus has it
        for share in shares:
            share.parameter.grad = share.total(weights).contiguous()
        for parameter in parameters:
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)  # It had no part in the losses

    def _record(self, layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if not torch.is_grad_enabled():
            return
        if layer in self._records:
            raise _refusal(f"layer '{self._layers[layer]}' is used more than once in a forward pass")
        tensor = given[0].detach()
        self._records[layer] = _Record(tensor, output, (tensor._version, output._version))


def _trainable_layers(model: nn.Module) -> Mapping[nn.Module, str]:
    """Return the layers with trainable parameters and their names."""
    layers: dict[nn.Module, str] = {}
    seen: set[nn.Parameter] = set()
    for name, layer in model.named_modules():
        own = {p for p in layer.parameters(recurse=False) if p.requires_grad}
        if not own:
            continue
        if type(layer) not in _SHARES:
            raise _refusal(f"no norms of single examples for layer '{name}' ({type(layer).__name__})")
        if isinstance(layer, nn.Conv2d) and not _is_plain(layer):
            raise _refusal(
                f"no norms of single examples for grouped or specially padded convolutions such as '{name}'"
            )
        if own & seen:
            raise _refusal(f"layer '{name}' shares parameters with another")
        seen |= own
        layers[layer] = name
    return layers


def _is_plain(layer: nn.Conv2d) -> bool:
    return layer.groups == 1 and not isinstance(layer.padding, str) and layer.padding_mode == "zeros"


def _require_examples(name: str, record: _Record, count: int) -> None:
    if record.versions != (record.given._version, record.output._version):
        raise _refusal(f"the input or output of layer '{name}' is changed in place")
    if record.given.dim() < 2 or not len(record.given) == len(record.output) == count:
        raise _refusal(f"layer '{name}' does not see the examples one by one")


def _refusal(reason: str) -> BadInput:
    return BadInput(f'model.name: cannot be trained with privacy.unit = "example": {reason}')


def _linear(layer: nn.Linear, given: Tensor, back: Tensor) -> Iterator[_Share]:
    """Yield the shares of a linear layer; its input has shape [n, …, p], what comes back [n, …, o]."""
    if _trains(layer.weight):
        if back.dim() == 2:
            norms = torch.linalg.vector_norm(given, dim=1) * torch.linalg.vector_norm(back, dim=1)
            yield _Share(layer.weight, norms, lambda weights: (weights[:, None] * back).T @ given)
        else:
            right, left = given.flatten(1, -2), back.flatten(1, -2).mT  # [n, l, p], [n, o, l]
            if _fits(layer.weight, len(back)):
                yield _formed(layer.weight, torch.bmm(left, right))
            else:
                yield _Share(
                    layer.weight,
                    _product_norms(left, right),
                    lambda weights: torch.einsum("n,nol,nlp->op", weights, left, right),
                )
    if _trains(layer.bias):
        yield _formed(layer.bias, back.reshape(len(back), -1, back.shape[-1]).sum(dim=1))


def _convolution(layer: nn.Conv2d, given: Tensor, back: Tensor) -> Iterator[_Share]:
    """Yield the shares of a convolution; its input has shape [n, c, h, w], what comes back [n, o, h', w']."""
    rows = back.flatten(2).mT  # [n, l, o]
    weight = layer.weight
    if _trains(weight):
        left = patches(given, layer).mT  # [n, k²c, l]
        if _fits(weight, len(back)):
            out, channels, *kernel = weight.shape
            gradients = torch.bmm(left, rows).view(-1, *kernel, channels, out)
            yield _formed(weight, gradients, lambda total: total.permute(3, 2, 0, 1))
        else:
            how = layer.stride, layer.padding, layer.dilation
            yield _Share(
                weight,
                _product_norms(left, rows),
                lambda weights: conv2d_weight(  # type: ignore[no-untyped-call]
                    given, weight.shape, weights.view(-1, 1, 1, 1) * back, *how
                ),
            )
    if _trains(layer.bias):
        yield _formed(layer.bias, rows.sum(dim=1))


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


def _group_norm(layer: nn.GroupNorm | PartialGroupNorm, given: Tensor, back: Tensor) -> Iterator[_Share]:
    """Yield the shares of a group norm; its input and what comes back have shape [n, c, …]."""
    columns = back.reshape(*back.shape[:2], -1)  # [n, c, l]
    if _trains(layer.weight):
        if isinstance(layer, PartialGroupNorm):
            normal = layer.normal(given)
        else:
            normal = functional.group_norm(given, layer.num_groups, eps=layer.eps)
        yield _formed(layer.weight, (normal.reshape(columns.shape) * columns).sum(dim=2))
    if _trains(layer.bias):
        yield _formed(layer.bias, columns.sum(dim=2))


_SHARES: Mapping[type[nn.Module], Callable[[Any, Tensor, Tensor], Iterator[_Share]]] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.GroupNorm: _group_norm,
    PartialGroupNorm: _group_norm,
}


def _trains(parameter: Tensor | None) -> TypeGuard[Tensor]:
    return parameter is not None and parameter.requires_grad


def _fits(parameter: Tensor, count: int) -> bool:
    return count * parameter.numel() <= _KEPT_ENTRIES


def _formed(
    parameter: Tensor, gradients: Tensor, arrange: Callable[[Tensor], Tensor] = lambda total: total
) -> _Share:
    """Return the share of gradients that are there, [n, …], and whose sum is the parameter's if arranged."""
    flat, shape = gradients.flatten(1), gradients.shape[1:]
    norms = torch.linalg.vector_norm(flat, dim=1)
    return _Share(parameter, norms, lambda weights: arrange((weights @ flat).view(shape)))


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

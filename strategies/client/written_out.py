"""Gradients of a perceptron written out, of k models at once: batched matrix products, and no autograd.

`torch.func` differentiates any model, but of a small one most of the time goes into taking it apart: its
operations are many, and each is a dozen calls in Python. Here every layer says how it is computed and
differentiated, for the parameters of k models along a first axis, into gradients that are there already. It
is used for chains of layers that are known, and only after its gradients were found to be autograd's (see
`strategies.client.stackable.examined`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from strategies.client.training import Batch
from strategies.task import Task

_TINY = 1e-6
"""Added to a norm before something is divided by it."""


class _Layer(ABC):
    """A layer of k models, with their parameters and the places of its gradients; it keeps its last inputs.

    Parameters
    ----------
    layer
        As it is in the model.
    parameters, into
        Those of the layer, shape [k, ...] each; views of them are made here, once for all steps.
    """

    def __init__(self, layer: nn.Module, parameters: Sequence[Tensor], into: Sequence[Tensor]) -> None:
        self._layer, self._parameters, self._into = layer, parameters, into

    @abstractmethod
    def forward(self, x: Tensor, noises: Iterator[Tensor]) -> Tensor:
        """Return the outputs, shape [k, n, ...], of inputs of shape [k, n, ...]."""

    @abstractmethod
    def backward(self, of_y: Tensor) -> None:
        """Write the gradients of the layer's parameters, given that of its last outputs."""

    @abstractmethod
    def of_inputs(self, of_y: Tensor) -> Tensor:
        """Return the gradient of the last inputs, given that of the outputs."""

    @abstractmethod
    def squares(self, of_y: Tensor) -> Tensor:
        """Return ‖g_j‖² of the layer's parameters for each example by itself, shape [k, n]."""


@final
class _Linear(_Layer):
    def __init__(self, layer: nn.Module, parameters: Sequence[Tensor], into: Sequence[Tensor]) -> None:
        super().__init__(layer, parameters, into)
        self._weight, self._turned = parameters[0], parameters[0].transpose(1, 2)  # [k, in, out]
        self._biases = [bias.unsqueeze(1) for bias in parameters[1:]]

    def forward(self, x: Tensor, noises: Iterator[Tensor]) -> Tensor:
        self._x = x
        if not self._biases:
            return torch.bmm(x, self._turned)
        return torch.baddbmm(self._biases[0], x, self._turned)

    def backward(self, of_y: Tensor) -> None:
        torch.bmm(of_y.transpose(1, 2), self._x, out=self._into[0])
        for place in self._into[1:]:
            torch.sum(of_y, 1, out=place)

    def of_inputs(self, of_y: Tensor) -> Tensor:
        return torch.bmm(of_y, self._weight)

    def squares(self, of_y: Tensor) -> Tensor:
        """Return ‖x‖² ‖∂y‖² for the weights, and ‖∂y‖² for the biases."""
        seen = _squared(self._x)
        return _squared(of_y) * (seen + 1 if self._biases else seen)


@final
class _Norm(_Layer):
    """Group norm of vectors: each group of an example is normalised, then scaled and shifted."""

    def __init__(self, layer: nn.Module, parameters: Sequence[Tensor], into: Sequence[Tensor]) -> None:
        super().__init__(layer, parameters, into)
        self._groups = int(getattr(layer, "num_groups", 1))
        self._eps = float(layer.eps)  # type: ignore[arg-type]
        self._affine = [each.unsqueeze(1) for each in parameters]  # [k, 1, size]

    def forward(self, x: Tensor, noises: Iterator[Tensor]) -> Tensor:
        self._parts = x.view(*x.shape[:2], self._groups, -1)  # [k, n, groups, size]
        size = self._parts.shape[3:]
        normal, self._mean, self._scale = torch.native_layer_norm(self._parts, size, None, None, self._eps)
        self._normal = normal.view(x.shape)
        if not self._affine:
            return self._normal
        weight, bias = self._affine
        return torch.addcmul(bias, self._normal, weight)

    def backward(self, of_y: Tensor) -> None:
        if self._into:
            torch.sum(of_y * self._normal, 1, out=self._into[0])
            torch.sum(of_y, 1, out=self._into[1])

    def of_inputs(self, of_y: Tensor) -> Tensor:
        inner = of_y * self._affine[0] if self._affine else of_y
        parts, mean, scale = self._parts, self._mean, self._scale
        wanted = [True, False, False]
        found, *_ = torch.ops.aten.native_layer_norm_backward(
            inner.view(parts.shape), parts, parts.shape[3:], mean, scale, None, None, wanted
        )
        return found.view(of_y.shape)  # type: ignore[no-any-return]

    def squares(self, of_y: Tensor) -> Tensor:
        if not self._into:
            return of_y.new_zeros(of_y.shape[:2])
        return _squared(of_y * self._normal) + _squared(of_y)


class _Bare(_Layer):
    """A layer without parameters."""

    def backward(self, of_y: Tensor) -> None:
        pass

    def squares(self, of_y: Tensor) -> Tensor:
        return of_y.new_zeros(of_y.shape[:2])


@final
class _Rectified(_Bare):
    def forward(self, x: Tensor, noises: Iterator[Tensor]) -> Tensor:
        self._y = x.relu()
        return self._y

    def of_inputs(self, of_y: Tensor) -> Tensor:
        return torch.ops.aten.threshold_backward(of_y, self._y, 0)  # type: ignore[no-any-return]


@final
class _Tanh(_Bare):
    def forward(self, x: Tensor, noises: Iterator[Tensor]) -> Tensor:
        self._y = x.tanh()
        return self._y

    def of_inputs(self, of_y: Tensor) -> Tensor:
        return torch.ops.aten.tanh_backward(of_y, self._y)  # type: ignore[no-any-return]


@final
class _Flat(_Bare):
    def forward(self, x: Tensor, noises: Iterator[Tensor]) -> Tensor:
        self._shape = x.shape
        return x.flatten(2)

    def of_inputs(self, of_y: Tensor) -> Tensor:
        return of_y.view(self._shape)


@final
class _Dropping(_Bare):
    """Dropout by numbers that were drawn beforehand; none where the layer drops nothing."""

    def forward(self, x: Tensor, noises: Iterator[Tensor]) -> Tensor:
        self._noise = next(noises) if self._layer.p else None
        return x if self._noise is None else x * self._noise

    def of_inputs(self, of_y: Tensor) -> Tensor:
        return of_y if self._noise is None else of_y * self._noise


_KINDS: dict[type[nn.Module], type[_Layer]] = {
    nn.Linear: _Linear,
    nn.GroupNorm: _Norm,
    nn.ReLU: _Rectified,
    nn.Tanh: _Tanh,
    nn.Flatten: _Flat,
    nn.Dropout: _Dropping,
}


@final
@dataclass(frozen=True, eq=False)
class WrittenOut:
    """A chain of layers and a task, differentiated by hand.

    Parameters
    ----------
    layers
        In the order of a forward pass, each with the positions of its parameters among those of the model.
    task
        Says the loss.
    """

    layers: tuple[tuple[nn.Module, tuple[int, ...]], ...]
    task: Task

    @staticmethod
    def of(model: nn.Module, task: Task) -> "WrittenOut | None":
        """Return a model's layers written out; None if one of them, or what is around them, is unknown."""
        if type(task).forward is not Task.forward:
            return None
        places = {id(p): i for i, p in enumerate(model.parameters())}
        layers = list(_chain(model))
        owned = [id(p) for layer in layers for p in layer.parameters()]
        known = all(type(layer) in _KINDS and _is_simple(layer) for layer in layers)
        if not known or owned != list(places) or not owned or not _all_trained(model):
            return None
        found = tuple((layer, tuple(places[id(p)] for p in layer.parameters())) for layer in layers)
        return WrittenOut(found, task)

    def on(self, parameters: Sequence[Tensor], into: Sequence[Tensor]) -> "Chain":
        """Return the chain of k models; see `strategies.client.stackable.Stackable.on`."""
        found = [
            _KINDS[type(layer)](layer, [parameters[i] for i in own], [into[i] for i in own])
            for layer, own in self.layers
        ]
        first = next(number for number, (_, own) in enumerate(self.layers) if own)
        return Chain(found, first, self.task)


@final
@dataclass(frozen=True, eq=False)
class Chain:
    """The layers of k models; `first` is the first that has parameters: its inputs need no gradient."""

    layers: Sequence[_Layer]
    first: int
    task: Task

    def gradients(self, batch: Batch, weights: Tensor, noises: Sequence[Tensor]) -> Tensor:
        """Write the gradients, and return the sums (see `strategies.client.stackable.Gradients`)."""
        of_x, losses = self._forward(batch, weights, noises)
        for layer in reversed(self.layers[self.first + 1 :]):
            layer.backward(of_x)
            of_x = layer.of_inputs(of_x)
        self.layers[self.first].backward(of_x)
        return losses

    def clipped_sums(
        self, batch: Batch, present: Tensor, noises: Sequence[Tensor], clip_norms: Tensor
    ) -> None:
        """Write the sums of clipped gradients (see `strategies.client.stackable.ClippedSums`).

        A layer's gradient is linear in that of its outputs, so an example is scaled there.
        """
        of_x, _ = self._forward(batch, torch.ones_like(present), noises)
        backs: list[tuple[_Layer, Tensor]] = []
        for layer in reversed(self.layers[self.first + 1 :]):
            backs.append((layer, of_x))
            of_x = layer.of_inputs(of_x)
        backs.append((self.layers[self.first], of_x))
        squares = sum((layer.squares(of_y) for layer, of_y in backs), torch.zeros_like(present))
        factors = present * clip_factors(squares.sqrt(), clip_norms.unsqueeze(1))  # [k, n]
        for layer, of_y in backs:
            layer.backward(of_y * factors.view(*factors.shape, *[1] * (of_y.dim() - 2)))

    def _forward(self, batch: Batch, weights: Tensor, noises: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the gradient of the weighted losses by the outputs, and the weighted losses' sums."""
        x, targets = batch
        assert isinstance(x, Tensor)
        left = iter(noises)
        for layer in self.layers:
            x = layer.forward(x, left)
        return self.task.weighted_gradients(x, targets, weights)


def clip_factors(norms: Tensor, largest: Tensor | float) -> Tensor:
    """Return min(1, C / (‖g‖ + 1e-6)) for each norm, as Opacus and `torch.nn.utils.clip_grad_norm_` have it.

    Examples
    --------
    >>> clip_factors(torch.tensor([2.0, 0.5]), 1.0)
    tensor([0.5000, 1.0000])
    """
    return (largest / (norms + _TINY)).clamp(max=1.0)


def _squared(vectors: Tensor) -> Tensor:
    """Return the squared lengths of vectors, shape [k, n, size] -> [k, n]."""
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=2)
    return norms.square()


def _chain(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a model that calls one after the other, or the model itself."""
    if type(model) is not nn.Sequential or not _is_simple(model):
        yield model
        return
    for layer in model:
        yield from _chain(layer)


def _is_simple(layer: nn.Module) -> bool:
    """Whether a layer does what its class says: no hook is called, and it is made of what is known."""
    hooks: tuple[Any, ...] = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks)
    if any(hooks) or layer._backward_pre_hooks:
        return False
    if isinstance(layer, nn.Flatten):
        return (layer.start_dim, layer.end_dim) == (1, -1)
    return not (isinstance(layer, nn.GroupNorm) and layer.affine and layer.bias is None)


def _all_trained(model: nn.Module) -> bool:
    """Whether all parameters are trained, and nothing is done to a gradient on its way."""
    return all(p.requires_grad and not p._backward_hooks for p in model.parameters())

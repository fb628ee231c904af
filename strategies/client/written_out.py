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

from strategies.task import Task

Taken = list[Tensor]
"""What a layer keeps from its way forward for its way back."""


@dataclass(frozen=True, eq=False)
class _Layer(ABC):
    """A layer of k models; `own` are the positions of its parameters among those of the model."""

    layer: nn.Module
    own: tuple[int, ...]

    @abstractmethod
    def forward(self, x: Tensor, parameters: list[Tensor], noises: Iterator[Tensor]) -> tuple[Tensor, Taken]:
        """Return the outputs, shape [k, n, ...], of inputs of shape [k, n, ...]."""

    @abstractmethod
    def backward(self, of_y: Tensor, taken: Taken, parameters: list[Tensor], into: list[Tensor]) -> None:
        """Write the gradients of the layer's parameters, given that of its outputs."""

    @abstractmethod
    def of_inputs(self, of_y: Tensor, taken: Taken, parameters: list[Tensor]) -> Tensor:
        """Return the gradient of the inputs, given that of the outputs."""


@final
class _Linear(_Layer):
    def forward(self, x: Tensor, parameters: list[Tensor], noises: Iterator[Tensor]) -> tuple[Tensor, Taken]:
        weight = parameters[self.own[0]].transpose(1, 2)  # [k, in, out]
        if len(self.own) == 1:
            return torch.bmm(x, weight), [x]
        return torch.baddbmm(parameters[self.own[1]].unsqueeze(1), x, weight), [x]

    def backward(self, of_y: Tensor, taken: Taken, parameters: list[Tensor], into: list[Tensor]) -> None:
        torch.bmm(of_y.transpose(1, 2), taken[0], out=into[self.own[0]])
        for position in self.own[1:]:
            torch.sum(of_y, 1, out=into[position])

    def of_inputs(self, of_y: Tensor, taken: Taken, parameters: list[Tensor]) -> Tensor:
        return torch.bmm(of_y, parameters[self.own[0]])


@final
class _Norm(_Layer):
    """Group norm of vectors: each group of an example is normalised, then scaled and shifted."""

    def forward(self, x: Tensor, parameters: list[Tensor], noises: Iterator[Tensor]) -> tuple[Tensor, Taken]:
        parts = x.view(*x.shape[:2], self._groups, -1)  # [k, n, groups, size]
        normal, mean, scale = torch.native_layer_norm(parts, parts.shape[3:], None, None, self._eps)
        normal = normal.view(x.shape)
        if not self.own:
            return normal, [parts, mean, scale, normal]
        weight, bias = (parameters[position].unsqueeze(1) for position in self.own)
        return torch.addcmul(bias, normal, weight), [parts, mean, scale, normal]

    def backward(self, of_y: Tensor, taken: Taken, parameters: list[Tensor], into: list[Tensor]) -> None:
        if self.own:
            torch.sum(of_y * taken[3], 1, out=into[self.own[0]])
            torch.sum(of_y, 1, out=into[self.own[1]])

    def of_inputs(self, of_y: Tensor, taken: Taken, parameters: list[Tensor]) -> Tensor:
        parts, mean, scale, _ = taken
        inner = of_y * parameters[self.own[0]].unsqueeze(1) if self.own else of_y
        found, *_ = torch.ops.aten.native_layer_norm_backward(
            inner.view(parts.shape), parts, parts.shape[3:], mean, scale, None, None, [True, False, False]
        )
        return found.view(of_y.shape)  # type: ignore[no-any-return]

    @property
    def _groups(self) -> int:
        return int(getattr(self.layer, "num_groups", 1))

    @property
    def _eps(self) -> float:
        return float(self.layer.eps)  # type: ignore[arg-type]


class _Bare(_Layer):
    """A layer without parameters."""

    def backward(self, of_y: Tensor, taken: Taken, parameters: list[Tensor], into: list[Tensor]) -> None:
        pass


@final
class _Rectified(_Bare):
    def forward(self, x: Tensor, parameters: list[Tensor], noises: Iterator[Tensor]) -> tuple[Tensor, Taken]:
        found = x.relu()
        return found, [found]

    def of_inputs(self, of_y: Tensor, taken: Taken, parameters: list[Tensor]) -> Tensor:
        return torch.ops.aten.threshold_backward(of_y, taken[0], 0)  # type: ignore[no-any-return]


@final
class _Tanh(_Bare):
    def forward(self, x: Tensor, parameters: list[Tensor], noises: Iterator[Tensor]) -> tuple[Tensor, Taken]:
        found = x.tanh()
        return found, [found]

    def of_inputs(self, of_y: Tensor, taken: Taken, parameters: list[Tensor]) -> Tensor:
        return torch.ops.aten.tanh_backward(of_y, taken[0])  # type: ignore[no-any-return]


@final
class _Flat(_Bare):
    def forward(self, x: Tensor, parameters: list[Tensor], noises: Iterator[Tensor]) -> tuple[Tensor, Taken]:
        return x.flatten(2), [x]

    def of_inputs(self, of_y: Tensor, taken: Taken, parameters: list[Tensor]) -> Tensor:
        return of_y.view(taken[0].shape)


@final
class _Dropping(_Bare):
    """Dropout by numbers that were drawn beforehand; none where the layer drops nothing."""

    def forward(self, x: Tensor, parameters: list[Tensor], noises: Iterator[Tensor]) -> tuple[Tensor, Taken]:
        if not self.layer.p:
            return x, []
        noise = next(noises)
        return x * noise, [noise]

    def of_inputs(self, of_y: Tensor, taken: Taken, parameters: list[Tensor]) -> Tensor:
        return of_y * taken[0] if taken else of_y


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
        In the order of a forward pass.
    first
        The first of them that has parameters: the gradient of its inputs is nobody's.
    """

    layers: tuple[_Layer, ...]
    first: int
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
        found = [_KINDS[type(each)](each, tuple(places[id(p)] for p in each.parameters())) for each in layers]
        return WrittenOut(tuple(found), next(i for i, layer in enumerate(found) if layer.own), task)

    def gradients(
        self,
        parameters: list[Tensor],
        batch: tuple[Tensor, Tensor],
        weights: Tensor,
        noises: Sequence[Tensor],
        into: list[Tensor],
    ) -> Tensor:
        """Write the gradients of Σ_j weight_j · loss_j for k models; return these sums, shape [k].

        Parameters
        ----------
        into
            Where the gradients go, shape [k, ...] each.

        See `strategies.client.stackable.Stackable.gradients` for the others.
        """
        x, targets = batch
        left, taken = iter(noises), list[Taken]()
        for layer in self.layers:
            x, kept = layer.forward(x, parameters, left)
            taken.append(kept)
        of_x, losses = self.task.weighted_gradients(x, targets, weights)
        for place in range(len(self.layers) - 1, self.first - 1, -1):
            layer = self.layers[place]
            layer.backward(of_x, taken[place], parameters, into)
            if place > self.first:
                of_x = layer.of_inputs(of_x, taken[place], parameters)
        return losses


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

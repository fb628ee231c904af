"""How the clipped sum of the examples' gradients is made, all behind Opacus' interface; see docs/privacy.md.

- ``one-pass``: one backward pass (`strategies.layers.privacy.clipping`);
- ``ghost``: Opacus' ghost clipping, two backward passes: Li, Tramèr, Liang, Hashimoto, arXiv 2110.05679;
- ``hooks``: Opacus' per-example gradients of all parameters, held until they are clipped.

Each has a module that listens to the model and an optimiser of Opacus that adds our noise, from a secret
stream and rounded (`strategies.layers.privacy.noise`). All take the samplers of
`strategies.layers.privacy.samplers`, by tables of their own classes: Opacus' registry stays as it is.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from opacus.grad_sample import GradSampleHooks, GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from strategies.core.secret_random import RandomStream
from strategies.layers.privacy.clipping import OnePass, OnePassLoss, batch_dims, refusal
from strategies.layers.privacy.noise import noised
from strategies.layers.privacy.rules import NORM_SAMPLERS
from strategies.layers.privacy.samplers import GRAD_SAMPLERS
from strategies.layers.privacy.settings import EngineName


class _SecretNoise(DPOptimizer):
    """Adds noise of a secret stream to the clipped sums, rounds to the noise's grid, divides by qn."""

    def __init__(self, optimizer: torch.optim.Optimizer, mechanism: "Mechanism") -> None:
        super().__init__(
            optimizer,
            noise_multiplier=mechanism.noise_multiplier,
            max_grad_norm=mechanism.clip_norm,
            expected_batch_size=cast("int", mechanism.expected_batch_size),  # Opacus only divides by it
        )
        self._stream = mechanism.stream

    def add_noise(self) -> None:
        """Make what is released of the sums, in one draw over all parameters."""
        sums = torch.cat([cast("Any", parameter).summed_grad.flatten() for parameter in self.params])
        released = noised(sums, self.noise_multiplier, self.max_grad_norm, self._stream)
        parts = torch.split(released, [parameter.numel() for parameter in self.params])
        for parameter, part in zip(self.params, parts, strict=True):
            parameter.grad = part.view_as(parameter)


@final
class _NoiseOnSums(_SecretNoise, DPOptimizerFastGradientClipping):
    """For engines that leave the clipped sum in ``.grad``."""

    def accumulate(self) -> None:
        """Take the sum as it is: a step has one batch."""
        for parameter in self.params:
            cast("Any", parameter).summed_grad = parameter.grad


class _Sampled(GradSampleHooks):
    """What hooks and ghost clipping share: the samplers, and where a layer's batch lies."""

    GRAD_SAMPLERS = cast("dict[Any, Any]", GRAD_SAMPLERS)  # Opacus only looks into it
    _batch_dims: Mapping[nn.Module, int]

    def rearrange_grad_samples(
        self, *, module: nn.Module, backprops: Tensor, loss_reduction: str, batch_first: bool
    ) -> tuple[Any, Any]:
        """Bring a layer's batch to the first dimension."""
        first = batch_first and self._batch_dims.get(module, 0) == 0
        return super().rearrange_grad_samples(
            module=module, backprops=backprops, loss_reduction=loss_reduction, batch_first=first
        )


@final
class HooksModule(_Sampled, GradSampleModule):
    """Opacus' per-example gradients of a model."""

    def __init__(self, model: nn.Module) -> None:
        self._batch_dims = batch_dims(model)
        super().__init__(model, loss_reduction="sum", strict=False)


@final
class GhostModule(_Sampled, GradSampleModuleFastGradientClipping):
    """Opacus' ghost clipping of a model, with norms that do not cancel."""

    NORM_SAMPLERS = NORM_SAMPLERS

    def __init__(self, model: nn.Module, clip_norm: float) -> None:
        self._batch_dims = batch_dims(model)
        self._edges: list[GradientEdge] = []
        super().__init__(model, loss_reduction="sum", strict=False, max_grad_norm=clip_norm)

    def capture_activations_hook(
        self, module: nn.Module, forward_input: Any, _forward_output: Tensor
    ) -> None:
        """Note, besides a layer's input, how far back a backward pass must go for its hooks."""
        super().capture_activations_hook(module, forward_input, _forward_output)
        if self.hooks_enabled and _forward_output.requires_grad:
            self._edges.append(get_gradient_edge(_forward_output))
            self._edges += _edges_behind(forward_input)

    def take_norms(self, losses: Tensor) -> None:
        """Go back through the graph, form no gradient of a parameter, and leave the graph as it is."""
        edges, self._edges = self._edges, []
        torch.autograd.grad(losses.sum(), edges, retain_graph=True, allow_unused=True)


def _edges_behind(inputs: Sequence[Tensor]) -> Iterator[GradientEdge]:
    """Yield what lies behind the hook on a layer's inputs, which fires when the pass has gone by."""
    for tensor in inputs:
        if tensor.grad_fn is not None:
            yield from (
                GradientEdge(node, nr) for node, nr in tensor.grad_fn.next_functions if node is not None
            )


@final
class GhostLoss(DPTensorFastGradientClipping):
    """Losses of a batch whose `backward` forms gradients of parameters in the second pass alone."""

    def backward(self) -> None:
        """Set the gradient of every trainable parameter to the clipped sum of the examples' gradients."""
        module = cast("GhostModule", self.module)
        module.take_norms(self.loss_per_sample)
        self.optimizer.zero_grad(set_to_none=True)
        weights = module.get_clipping_coef()
        module.disable_hooks()
        (weights * self.loss_per_sample).sum().backward()  # type: ignore[no-untyped-call]
        module.enable_hooks()


@dataclass(frozen=True)
class Mechanism:
    """What is released of a batch: the clipped sum with noise, over the expected number of examples.

    Parameters
    ----------
    noise_multiplier
        σ, at least 0.
    clip_norm
        C, above 0.
    expected_batch_size
        qn, above 0.
    stream
        Of the noise.
    """

    noise_multiplier: float
    clip_norm: float
    expected_batch_size: float
    stream: RandomStream


class Engine(ABC):
    """Turns the losses of a batch into gradients that may be released, one batch at a time.

    Parameters
    ----------
    model
        As `strategies.layers.privacy.models` lets it pass; is listened to until `close`.
    module, optimizer
        Of Opacus, for that model and its trainable parameters.
    """

    def __init__(self, model: nn.Module, module: Any, optimizer: Any) -> None:
        self.model, self.module, self.optimizer = model, module, optimizer
        self.parameters: list[nn.Parameter] = optimizer.params
        self._working_in_place: list[Any] = []

    def forbid_work_in_place(self) -> "Engine":
        """Have layers give a tensor of their own until the end: the hooks of Opacus cannot bear others."""
        self._working_in_place = [layer for layer in self.model.modules() if layer.__dict__.get("inplace")]
        for layer in self._working_in_place:
            layer.inplace = False
        return self

    @abstractmethod
    def backward(self, losses: Tensor) -> None:
        """Take the losses of a batch, [n], n at least 1, from the model's last forward pass."""

    def skip(self) -> None:
        """Take an empty batch, whose sum is zero."""
        self.optimizer.zero_grad(set_to_none=True)
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)

    def release(self) -> None:
        """Leave gradients that carry their noise and are divided by the expected batch size."""
        self.optimizer.pre_step()

    def close(self) -> None:
        """Leave the model without hooks, attributes and gradients."""
        for layer in self._working_in_place:
            layer.inplace = True
        self.module.cleanup()
        for parameter in self.parameters:
            del cast("Any", parameter).summed_grad
        for layer in self.model.modules():
            for name in ("activations", "max_batch_len"):
                layer.__dict__.pop(name, None)
        self.model.zero_grad(set_to_none=True)


@final
class _OnePassEngine(Engine):
    def backward(self, losses: Tensor) -> None:
        OnePassLoss(self.module, self.optimizer, losses, "sum").backward()


@final
class _GhostEngine(Engine):
    def backward(self, losses: Tensor) -> None:
        for parameter in self.parameters:  # Of one that has no part in the losses
            cast("Any", parameter)._norm_sample = losses.new_zeros(len(losses))
        with _without_remarks():
            GhostLoss(self.module, self.optimizer, losses, "sum").backward()
        _require_all_turns(self.model)
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)


@final
class _HooksEngine(Engine):
    def backward(self, losses: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with _without_remarks():
            losses.sum().backward()  # type: ignore[no-untyped-call]
        _require_all_turns(self.model)
        self._fill(len(losses))

    def skip(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self._fill(0)

    def _fill(self, count: int) -> None:
        """Give parameters without a part in the losses zeros for every example."""
        for parameter in self.parameters:
            if cast("Any", parameter).grad_sample is None:
                cast("Any", parameter).grad_sample = parameter.new_zeros(count, *parameter.shape)


def engine_of(
    name: EngineName, model: nn.Module, optimizer: torch.optim.Optimizer, mechanism: Mechanism
) -> Engine:
    """Return the engine with a name, listening to the model."""
    if name == "hooks":
        hooks = _HooksEngine(model, HooksModule(model), _SecretNoise(optimizer, mechanism))
        return hooks.forbid_work_in_place()
    noising, clip_norm = _NoiseOnSums(optimizer, mechanism), mechanism.clip_norm
    if name == "ghost":
        return _GhostEngine(model, GhostModule(model, clip_norm), noising).forbid_work_in_place()
    return _OnePassEngine(model, OnePass(model, clip_norm), noising)


def _require_all_turns(model: nn.Module) -> None:
    """Refuse a step in which the losses do not need a turn of a layer: Opacus mixes up its turns then."""
    for name, layer in model.named_modules():
        if layer.__dict__.get("activations"):
            raise refusal(
                f"layer '{name}' has a turn that the losses do not need; privacy.engine = \"auto\" allows it"
            )


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep torch from remarks on first layers, whose inputs need no gradient, and on gradients' layouts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "grad and param do not obey the gradient layout", UserWarning)
        warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
        yield

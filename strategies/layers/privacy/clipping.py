"""The clipped sum of the examples' gradients from one backward pass: book-keeping.

Bu, Wang, Zha, Karypis, "Differentially Private Optimization on Large Model at Small Cost", ICML 2023,
arXiv 2210.00038. The backward pass forms no gradient of a parameter, only what comes back to each layer's
output, B_i for example i. With the layer's input A_i it gives the norm of the example's gradient g_i, and the
sum when all norms are known:

    Σ_i c_i g_i,   c_i = min(1, C / (‖g_i‖ + 1e-6))

It stands behind Opacus' interface of fast gradient clipping: `OnePass` is its module, `OnePassLoss` its
loss, whose two backward passes become one. How norms and sums of a layer are made is in
`strategies.layers.privacy.rules`; a layer without a rule goes by its sampler
(`strategies.layers.privacy.samplers`), whose gradients are held until they are summed, and one without a
sampler by functorch. Gradients of a parameter that several layers share, or of a layer with several turns,
are added up before their norm is taken. Frozen parameters count for nothing. Infinite C is plain training on
the sum of the losses.

Norm and sum are made of the same A_i and B_i, so none counts more than C, whatever the layers do, as long as
nothing mixes examples.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.layers import DPMultiheadAttention
from opacus.layers.dp_multihead_attention import SequenceBias
from opacus.layers.dp_rnn import DPRNNBase
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from opacus.utils.module_utils import trainable_modules
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from strategies.core.errors import BadInput
from strategies.layers.privacy.rules import Rule, Share, formed, merged, rule_of, takes_turns
from strategies.layers.privacy.samplers import GRAD_SAMPLERS, Gradients, by_functorch


@dataclass(frozen=True)
class _Turn:
    """A layer's inputs in one turn with their versions, and where its output lies in the graph.

    The batch is the first dimension of each.
    """

    given: tuple[Tensor, ...]
    named: Mapping[str, Tensor]
    edge: GradientEdge
    lengths: tuple[int, ...]
    versions: tuple[int, ...]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return (*self.given, *self.named.values())


_Back = tuple[_Turn, Tensor]
"""A turn and what came back to its output, [n, …]."""


@final
class OnePass(GradSampleModuleFastGradientClipping):
    """Leaves the clipped sum of the examples' gradients in a model's `.grad` after one backward pass.

    Its hooks listen to the model itself, which is left without them by `cleanup`.

    Parameters
    ----------
    model
        Maps [n, …] to something of each example; its layers are such as `strategies.layers.privacy.engines`
        lets pass.
    clip_norm
        C, above 0.
    """

    GRAD_SAMPLERS = cast("dict[Any, Any]", GRAD_SAMPLERS)  # Opacus only looks into it

    def __init__(self, model: nn.Module, clip_norm: float) -> None:
        self._names = {layer: name for name, layer in model.named_modules()}
        self._batch_dims = batch_dims(model)
        self._turns: list[tuple[nn.Module, _Turn]] = []
        super().__init__(model, loss_reduction="sum", strict=False, max_grad_norm=clip_norm)
        self._shares: list[Share] = []

    def add_hooks(
        self, *, loss_reduction: str = "sum", batch_first: bool = True, force_functorch: bool = False
    ) -> None:
        """Listen to the layers, before all other hooks, to get each layer's own output."""
        handles = [
            layer.register_forward_hook(self._record, with_kwargs=True, prepend=True)
            for _, layer in accounted(self._module)
        ]
        cast("Any", self).autograd_grad_sample_hooks = handles
        self.enable_hooks()

    @property
    def model(self) -> nn.Module:
        """The model that is listened to."""
        return self._module

    @property
    def turns(self) -> list[tuple[nn.Module, tuple[int, int]]]:
        """The layers in the order of their turns, with the number of inputs by position and by name."""
        return [(layer, (len(turn.given), len(turn.named))) for layer, turn in self._turns]

    def take_norms(self, losses: Tensor) -> None:
        """Go back through the graph and note the norm of each example's gradient by parameter.

        Parameters
        ----------
        losses
            Of each example, [n], n at least 1, from the model's last forward pass.

        Raises
        ------
        BadInput
            If a layer did not see the examples one by one, or its input was changed in place.
        """
        self._shares = self.shares(losses)
        norms: dict[Tensor, Tensor] = {share.parameter: share.norms for share in self._shares}
        for parameter in self.trainable_parameters:  # One that had no part in the losses has none
            cast("Any", parameter)._norm_sample = norms.get(parameter, losses.new_zeros(len(losses)))

    def put_sums(self, weights: Tensor) -> None:
        """Set the gradient of every trainable parameter to the sum with weights of the examples, [n]."""
        for share in self._shares:
            share.parameter.grad = share.total(weights).contiguous()
        for parameter in self.trainable_parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._shares = []

    def shares(self, losses: Tensor, *, keep_graph: bool = False) -> list[Share]:
        """Return the shares of the trainable parameters in the losses' sum, each parameter once."""
        turns, self._turns = self._turns, []
        for layer, turn in turns:
            self._require_examples(layer, turn, len(losses))
        edges = [turn.edge for _, turn in turns]
        returned: Sequence[Tensor | None] = torch.autograd.grad(
            losses.sum(), edges, allow_unused=True, retain_graph=keep_graph
        )
        by_layer: dict[nn.Module, list[_Back]] = {}
        for (layer, turn), back in zip(turns, returned, strict=True):
            if back is not None:
                by_layer.setdefault(layer, []).append((turn, self._batch_first(layer, back)))
        self.disable_hooks()
        try:
            return list(self._shares_of(by_layer))
        finally:
            self.enable_hooks()

    def _shares_of(self, by_layer: Mapping[nn.Module, list[_Back]]) -> Iterator[Share]:
        owners = Counter(p for layer in by_layer for p in self._own(layer))
        held: dict[Tensor, Tensor] = {}
        for layer, backs in by_layer.items():
            rule = rule_of(layer)
            shared = any(owners[p] > 1 for p in self._own(layer))
            if rule is None or shared or (len(backs) > 1 and not takes_turns(layer)):
                _add(held, (self._sampled(layer, *back) for back in backs))
            else:
                yield from _by_rule(rule, layer, backs)
        yield from (formed(parameter, gradients) for parameter, gradients in held.items())

    def _own(self, layer: nn.Module) -> list[nn.Parameter]:
        """Return the parameters whose gradients a layer accounts for."""
        inner = type(layer) not in GRAD_SAMPLERS
        return [p for p in layer.parameters(recurse=inner) if p.requires_grad]

    def _sampled(self, layer: nn.Module, turn: _Turn, back: Tensor) -> Gradients:
        sampler = GRAD_SAMPLERS.get(type(layer))
        if sampler is not None:
            return sampler(layer, turn.given, back)
        try:
            return by_functorch(layer, turn.given, turn.named, back)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise refusal(f"{self._called(layer)} cannot be run example by example: {reason}") from None

    def _record(
        self, layer: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any], output: object
    ) -> None:
        if not self.hooks_enabled or not torch.is_grad_enabled():
            return
        inputs = (*given, *named.values())
        whole = type(layer) not in GRAD_SAMPLERS
        if not isinstance(output, Tensor) or not all(isinstance(each, Tensor) for each in inputs):
            raise refusal(f"{self._called(layer)} takes or gives something else than tensors")
        if not whole and (len(given) != 1 or named):
            raise refusal(f"{self._called(layer)} takes more than one tensor by position")
        if output.requires_grad:
            turned = tuple(self._batch_first(layer, each.detach()) for each in given)
            by_name = {name: self._batch_first(layer, each.detach()) for name, each in named.items()}
            lengths = tuple(_length(each) for each in (*turned, *by_name.values()))
            lengths += (_length(self._batch_first(layer, output.detach())),)
            versions = tuple(each._version for each in inputs)
            self._turns.append((layer, _Turn(turned, by_name, get_gradient_edge(output), lengths, versions)))

    def _batch_first(self, layer: nn.Module, tensor: Tensor) -> Tensor:
        dim = self._batch_dims.get(layer, 0)
        return tensor.movedim(dim, 0) if dim < tensor.dim() else tensor

    def _require_examples(self, layer: nn.Module, turn: _Turn, count: int) -> None:
        if turn.versions != tuple(each._version for each in turn.inputs):
            raise refusal(f"the input of {self._called(layer)} is changed in place")
        alone = type(layer) in GRAD_SAMPLERS and turn.given[0].is_floating_point() and turn.given[0].dim() < 2
        if alone or not turn.inputs or set(turn.lengths) != {count}:
            raise refusal(
                f"{self._called(layer)} does not see the examples one by one, along its first dimension"
            )

    def _called(self, layer: nn.Module) -> str:
        return f"layer '{self._names[layer]}' ({type(layer).__name__})"


@final
class OnePassLoss(DPTensorFastGradientClipping):
    """Losses of a batch whose `backward` is one pass where that of Opacus is two."""

    def backward(self) -> None:
        """Set the gradient of every trainable parameter to the clipped sum of the examples' gradients."""
        module = cast("OnePass", self.module)
        module.take_norms(self.loss_per_sample)
        self.optimizer.zero_grad(set_to_none=True)
        module.put_sums(module.get_clipping_coef())


def batch_dims(model: nn.Module) -> dict[nn.Module, int]:
    """Return the layers whose batch is not in the first dimension, and in which it is.

    They are those within a multi-head attention of Opacus that takes sequences first, and the biases that it
    appends.
    """
    found: dict[nn.Module, int] = {}
    for layer in model.modules():
        if isinstance(layer, DPMultiheadAttention) and not layer.batch_first:
            found |= dict.fromkeys(layer.children(), 1)
        if isinstance(layer, SequenceBias):
            found[layer] = 0 if layer.batch_first else 1
    return found


def accounted(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers, by name, that account for all trainable parameters.

    A layer without a sampler that has parameters of its own accounts for all that is in it.
    """
    within: set[nn.Module] = set()
    for name, layer in trainable_modules(model):
        if layer in within or isinstance(layer, DPRNNBase):
            continue
        if type(layer) not in GRAD_SAMPLERS:
            within |= set(layer.modules())
        yield name, layer


def refusal(reason: str) -> BadInput:
    """Return the error for a model that cannot be trained at the example level."""
    return BadInput(f'model.name: cannot be trained with privacy.unit = "example": {reason}')


def _by_rule(rule: Rule, layer: nn.Module, backs: list[_Back]) -> Iterator[Share]:
    given, back = merged([(turn.given[0], back) for turn, back in backs])
    return rule(layer, given, back)


def _add(held: dict[Tensor, Tensor], sampled: Iterable[Gradients]) -> None:
    """Add gradients of trainable parameters to those that are held."""
    for gradients in sampled:
        for parameter, each in gradients.items():
            if parameter.requires_grad:
                held[parameter] = held[parameter] + each if parameter in held else each


def _length(tensor: Tensor) -> int:
    return len(tensor) if tensor.dim() else -1

"""Which models can be trained at the example level, by which engine; and a trial before the first step.

What a model is made of is refused by `require_private` before any work. What its `forward` does shows only
in the trial: with three examples and altered parameters, Σ_i i · g_i by the layers' own accounts must be the
gradient of Σ_i i · ℓ_i by autograd. It is not if a layer mixes examples or has the batch in another
dimension, if a parameter is used behind its layer's back, or if examples change places on the way; then the
clip norm would be no bound.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from opacus.utils.module_utils import trainable_modules
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from strategies.client.evaluation import eval_mode
from strategies.client.kinds import Kind, form_of, kind_of_model, remember
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, Inputs
from strategies.layers.privacy.clipping import OnePass, accounted, refusal
from strategies.layers.privacy.rules import NORM_SAMPLERS, rule_of
from strategies.layers.privacy.samplers import GRAD_SAMPLERS
from strategies.layers.privacy.settings import EngineName
from strategies.models.mask import masks_of
from strategies.task import Task

_INSTEAD: Mapping[type[nn.Module], str] = {
    nn.MultiheadAttention: "opacus.layers.DPMultiheadAttention with batch_first=False, or linear layers "
    "around torch.nn.functional.scaled_dot_product_attention",
    nn.RNN: "opacus.layers.DPRNN",
    nn.LSTM: "opacus.layers.DPLSTM",
    nn.GRU: "opacus.layers.DPGRU",
}
"""What to use for layers that cannot be followed; exchanged unasked, they could compute something else."""
_OF_OPACUS = ("ghost", "hooks")
"""Engines whose hooks are those of Opacus."""
_TRIED = 3
"""Examples of a trial."""
_ALTERED_BY = 0.05
"""Parameters are altered by at most so much in a trial, as at zero a layer hides what is behind it."""
_verified: dict[Kind, None] = {}
"""Kinds of models, tasks and engines that passed the trial in this process."""
_TOLERANCE = 0.01
"""Relative, for rounding; what is wrong is off by about one."""


def require_private(model: nn.Module, engine: EngineName) -> None:
    """Refuse a model whose layers mix examples or cannot be followed, or that the engine has no rules for.

    Raises
    ------
    BadInput
        Naming the layer, and what to use instead.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, _BatchNorm) and (layer.training or layer.running_mean is None):
            raise refusal(
                f"layer '{name}' ({type(layer).__name__}) mixes the examples of a batch; use GroupNorm"
            )
    for name, layer in trainable_modules(model):
        if instead := _INSTEAD.get(type(layer)):
            raise refusal(f"layer '{name}' is {type(layer).__name__}; use {instead}")
        if reason := _objection(layer):
            raise refusal(f"layer '{name}' ({type(layer).__name__}): {reason}")
    for name, layer in accounted(model):
        if type(layer) not in GRAD_SAMPLERS and any(_draws(inner) for inner in layer.modules()):
            raise refusal(
                f"layer '{name}' ({type(layer).__name__}) has parameters of its own beside dropout; "
                "put them into a layer of their own"
            )
    _require_engine(model, engine)


def _objection(layer: nn.Module) -> str | None:
    """Return what is against a trainable layer."""
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        if layer.max_norm is not None or layer.scale_grad_by_freq:
            return "max_norm and scale_grad_by_freq make an example's gradient depend on others"
        if isinstance(layer, nn.EmbeddingBag) and layer.mode == "max":
            return 'mode "max" has no gradients of single examples; use "sum" or "mean"'
    validator = ModuleValidator.VALIDATORS.get(type(layer))
    errors = validator(layer) if validator else []
    return str(errors[0]).splitlines()[0] if errors else None


def _draws(layer: nn.Module) -> bool:
    return isinstance(layer, _DropoutNd) and layer.p > 0


def _require_engine(model: nn.Module, engine: EngineName) -> None:
    """Refuse an engine that the model's layers contradict."""
    layers = list(accounted(model))
    for name, layer in layers:
        if engine == "one-pass" and rule_of(layer) is None:
            raise _contradiction(engine, name, layer, "has no rule for one pass", "auto, ghost, hooks")
        if engine in _OF_OPACUS and type(layer) not in GRAD_SAMPLERS and any(True for _ in layer.buffers()):
            raise _contradiction(engine, name, layer, "has buffers and no sampler", "auto")
    if engine == "ghost":
        _require_apart(layers)


def _require_apart(layers: Iterable[tuple[str, nn.Module]]) -> None:
    """Refuse layers with a parameter in common."""
    seen: set[nn.Parameter] = set()
    for name, layer in layers:
        own = {p for p in layer.parameters() if p.requires_grad}
        if own & seen:
            raise _contradiction("ghost", name, layer, "shares parameters with another", "auto, hooks")
        seen |= own


def _contradiction(engine: EngineName, name: str, layer: nn.Module, reason: str, allowed: str) -> BadInput:
    what = f"layer '{name}' ({type(layer).__name__}) {reason}"
    return BadInput(f'privacy.engine: given "{engine}", but {what}; allowed for this model: {allowed}')


def engine_words(model: nn.Module, engine: EngineName) -> str:
    """Return how a model's gradients are clipped, in words for a summary.

    Examples
    --------
    >>> engine_words(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), "auto")
    'one-pass, samplers for LayerNorm'
    """
    if engine in _OF_OPACUS:
        return engine
    others = [layer for _, layer in accounted(model) if rule_of(layer) is None]
    kinds = {
        "samplers": {type(layer).__name__ for layer in others if type(layer) in GRAD_SAMPLERS},
        "functorch": {type(layer).__name__ for layer in others if type(layer) not in GRAD_SAMPLERS},
    }
    return ", ".join(["one-pass", *(f"{how} for {', '.join(sorted(of))}" for how, of in kinds.items() if of)])


def require_losses(losses: Tensor, count: int) -> None:
    """Refuse losses of a task that are not one for each example.

    Raises
    ------
    BadInput
        With the shape that came.
    """
    if losses.shape != (count,):
        raise BadInput(
            f"task.losses: given shape {tuple(losses.shape)}, allowed ({count},): one loss for each example"
        )


def verify(
    model: nn.Module, task: Task, data: Examples, engine: EngineName, generator: torch.Generator
) -> None:
    """Try whether the layers account for all of an example's gradient; the model is as before afterwards.

    What was found of a model holds for all models of its kind, whatever the values of their parameters: a
    process tries each kind once. A refusal is found anew each time.

    Parameters
    ----------
    generator
        Of the variation of training inputs.

    Raises
    ------
    BadInput
        If they do not, or a buffer changes, on which there would be no noise.
    """
    if not len(data):
        return
    count = min(_TRIED, len(data))
    inputs, targets = data.training_batch(torch.arange(count), generator, alone=True)
    kind = (*kind_of_model(model), task, engine, count, form_of(inputs), form_of(targets), targets.device)
    if kind in _verified:
        return
    gpus = [p.device for p in model.parameters() if p.device.type == "cuda"][:1]
    with _altered(model), torch.random.fork_rng(gpus):
        if count > 1:
            _require_independence(model, task, inputs)
        module = OnePass(model, float("inf"))
        try:
            losses = task.losses(task.forward(model, inputs), targets)
            require_losses(losses, count)
            _require_turns(module, engine)
            _require_account(module, losses)
        finally:
            module.cleanup()  # type: ignore[no-untyped-call]
    remember(_verified, kind, None)


@contextmanager
def _altered(model: nn.Module) -> Iterator[None]:
    """Alter the trainable parameters meanwhile; refuse a model whose buffers change of themselves.

    Raises
    ------
    BadInput
        Naming the buffer.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    saved = [p.detach().clone() for p in parameters]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        with torch.no_grad():
            for parameter in parameters:
                wave = torch.arange(parameter.numel(), dtype=torch.float32, device=parameter.device).sin_()
                parameter.add_(wave.view(parameter.shape), alpha=_ALTERED_BY)
        yield
        changed = [name for name, buffer in model.named_buffers() if not torch.equal(buffer, buffers[name])]
        if changed:
            raise refusal(f"buffer '{changed[0]}' changes in training, and no noise hides what it learns")
    finally:
        with torch.no_grad():
            for parameter, before in zip(parameters, saved, strict=True):
                parameter.copy_(before)
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])


def _require_independence(model: nn.Module, task: Task, inputs: Inputs) -> None:
    """Refuse a model that gives the first of several examples something else when the last one is away."""
    fewer = inputs[:-1] if isinstance(inputs, Tensor) else {name: each[:-1] for name, each in inputs.items()}
    with eval_mode(model):
        first, again = task.forward(model, inputs)[:1], task.forward(model, fewer)[:1]
    if not torch.isfinite(first).all():
        return
    if first.shape != again.shape or _norm(first - again) > _TOLERANCE * _norm(first):
        raise refusal("what it gives for an example depends on the others in the batch")


def _require_turns(module: OnePass, engine: EngineName) -> None:
    """Refuse layers that are used in a way in which Opacus' own engines are wrong."""
    if engine not in _OF_OPACUS:
        return
    names = {layer: name for name, layer in accounted(module.model)}
    turns = module.turns
    for layer, inputs in turns:
        if type(layer) not in GRAD_SAMPLERS and inputs != (1, 0):
            raise _contradiction(
                engine, names[layer], layer, "takes several inputs and has no sampler", "auto"
            )
    for layer, uses in Counter(layer for layer, _ in turns).items():
        if engine == "ghost" and uses > 1 and type(layer) in NORM_SAMPLERS:
            raise _contradiction(engine, names[layer], layer, "is used more than once", "auto, hooks")


def _require_account(module: OnePass, losses: Tensor) -> None:
    """Compare Σ_i i · g_i by the layers with the gradient of Σ_i i · ℓ_i, over i = 1, …, n."""
    weights = torch.arange(1, len(losses) + 1, device=losses.device, dtype=losses.dtype)
    shares = {share.parameter: share for share in module.shares(losses, keep_graph=True)}
    names = {p: name for name, p in module.model.named_parameters() if p.requires_grad}
    expected: Sequence[Tensor | None] = torch.autograd.grad(
        (weights * losses).sum(), list(names), allow_unused=True
    )
    masks = masks_of(module.model)  # Autograd clears what is pruned; the layers' sums do not
    whole = _norm(*(gradient for gradient in expected if gradient is not None))
    if not math.isfinite(whole):
        return
    for (parameter, name), gradient in zip(names.items(), expected, strict=True):
        true = torch.zeros_like(parameter) if gradient is None else gradient
        found = shares[parameter].total(weights) if parameter in shares else torch.zeros_like(parameter)
        if (mask := masks.get(name)) is not None:
            found = found * mask
        if _norm(found - true) > _TOLERANCE * (_norm(true) + 0.1 * whole / len(names) ** 0.5):
            raise refusal(
                f"the gradient of '{name}' is not the sum of what single examples add to it: a layer mixes "
                "examples, has the batch not in its first dimension, or uses a parameter of another layer"
            )


def _norm(*tensors: Tensor) -> float:
    return math.hypot(*(float(torch.linalg.vector_norm(tensor.float())) for tensor in tensors))

"""Whether many copies of a model can be trained as one batched computation, found out by trying it once.

What is looked for is behaviour, not the names of layers: outputs that depend on the other examples of a
batch, as batch norm's do, cannot be padded; buffers that change have no place in a pure function; and numbers
that are drawn elsewhere than in dropout layers cannot be drawn beforehand.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vmap

from strategies.client.precision import forward
from strategies.client.training import Batch, Training
from strategies.client.written_out import WrittenOut, clip_factors
from strategies.core.examples import Inputs, on_device
from strategies.core.seeds import GlobalState, seeded_layers, torch_generator

_TRIED = 2
"""Examples of the trial."""
_AGREE = 1e-4
"""How far gradients written out may be from autograd's in the trial, over their length."""
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
"""Layers that multiply their inputs by numbers that depend on the inputs' shape alone."""
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


Gradients = Callable[[Batch, Tensor, Sequence[Tensor]], Tensor]
"""Writes the gradients of Σ_j weight_j · loss_j for k models, and returns these sums, shape [k].

It is given inputs and targets, shape [k, n, ...]; the weights of the examples, shape [k, n]; and what
`Noise.draw` gave, shape [k, n, ...] each.
"""


ClippedSums = Callable[[Batch, Tensor, Sequence[Tensor], Tensor], None]
"""Writes Σ_j present_j · min(1, C / ‖∇loss_j‖) · ∇loss_j for k models.

It is given inputs and targets, shape [k, n, ...]; 1 for an example and 0 for what fills a batch up, shape
[k, n]; what `Noise.draw` gave; and the norms C, shape [k].
"""


class NotStackable(Exception):
    """Why a training is taken by itself, in a few words."""


@dataclass(frozen=True, eq=False)
class Noise:
    """A use of a dropout layer in a forward pass; `shape` is that of the inputs without the batch."""

    layer: nn.Module
    shape: tuple[int, ...]

    def draw(self, rows: int, like: Tensor) -> Tensor:
        """Draw what the layer multiplies that many inputs by, from torch's global generator.

        The layer does it itself, to ones: so the numbers are those that it would draw in training.
        """
        ones = torch.ones((rows, *self.shape), dtype=like.dtype, device=like.device)
        self.layer.train()
        with torch.no_grad():
            drawn: Tensor = self.layer(ones)
        return drawn


@dataclass(frozen=True, eq=False)
class Stackable:
    """A model as a pure function of its trainable parameters, many copies of it at once.

    Parameters
    ----------
    training
        One that has such a model; its parameters are not used.
    noises
        The uses of dropout layers, in the order of a forward pass.
    written
        The model's gradients written out; None: they are found by autograd.
    """

    training: Training
    noises: tuple[Noise, ...] = ()
    written: WrittenOut | None = None

    @property
    def tried(self) -> "Tried":
        """What is known of all models of this kind."""
        names = {id(layer): name for name, layer in self.training.model.named_modules()}
        uses = tuple((names[id(noise.layer)], noise.shape) for noise in self.noises)
        return Tried(uses, self.written is not None)

    def on(self, parameters: list[Tensor], into: list[Tensor]) -> Gradients:
        """Return what computes the gradients of k models whose parameters change in place.

        Parameters
        ----------
        parameters
            Of k models, shape [k, ...] each.
        into
            Where the gradients go, shape [k, ...] each.
        """
        if self.written is not None:
            return self.written.on(parameters, into).gradients

        def gradients(batch: Batch, weights: Tensor, noises: Sequence[Tensor]) -> Tensor:
            found, losses = self.by_autograd(parameters, batch, weights, noises)
            for place, gradient in zip(into, found, strict=True):
                place.copy_(gradient)
            return losses

        return gradients

    def clipped_on(self, parameters: list[Tensor], into: list[Tensor]) -> ClippedSums:
        """Return what computes the clipped sums of k models whose parameters change in place; see `on`."""
        if self.written is not None:
            return self.written.on(parameters, into).clipped_sums

        def sums(batch: Batch, present: Tensor, noises: Sequence[Tensor], clip_norms: Tensor) -> None:
            each = [g.flatten(2) for g in self.of_examples(parameters, batch, noises)]  # [k, n, size]
            each = [torch.where(present.unsqueeze(2) > 0, g, 0.0) for g in each]
            norms = torch.stack([torch.linalg.vector_norm(g, dim=2) for g in each]).norm(dim=0)
            factors = (present * clip_factors(norms, clip_norms.unsqueeze(1))).unsqueeze(1)  # [k, 1, n]
            for place, gradients in zip(into, each, strict=True):
                place.copy_(torch.bmm(factors, gradients).view(place.shape))

        return sums

    def of_examples(self, parameters: list[Tensor], batch: Batch, noises: Sequence[Tensor]) -> list[Tensor]:
        """Return the gradient of each example's loss as torch finds it, shape [k, n, ...] each."""

        def loss_of(own: list[Tensor], inputs: Inputs, target: Tensor, drawn: list[Tensor]) -> Tensor:
            alone = [noise.unsqueeze(0) for noise in drawn]
            return self._losses(own, _unsqueezed(inputs), target.unsqueeze(0), alone).sum()

        with _layers_off(self.noises):
            of_client = vmap(grad(loss_of), in_dims=(None, 0, 0, 0))
            return list(vmap(of_client)(parameters, *batch, list(noises)))

    def by_autograd(
        self, parameters: list[Tensor], batch: Batch, weights: Tensor, noises: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Return the gradients and sums of `Gradients` as torch finds them."""
        hooks = [_hooks(p) for p in self.training.parameters]

        def loss_of(own: list[Tensor], inputs: Inputs, targets: Tensor, weight: Tensor, drawn: Any) -> Tensor:
            return (self._losses(own, inputs, targets, drawn) * weight).sum()

        def differentiated(*given: Any) -> tuple[list[Tensor], Tensor]:
            found, loss = grad_and_value(loss_of)(*given)
            for position, hook in ((i, h) for i, each in enumerate(hooks) for h in each):
                found[position] = hook(found[position])
            return found, loss

        with _layers_off(self.noises):
            found, losses = vmap(differentiated)(parameters, *batch, weights, noises)
        return list(found), losses

    def _losses(self, own: list[Tensor], inputs: Inputs, targets: Tensor, drawn: list[Tensor]) -> Tensor:
        """Return the losses of examples, shape [n], with given parameters and dropout's numbers."""
        model, task = self.training.model, self.training.task
        names = [name for name, p in model.named_parameters() if p.requires_grad]

        def called(*given: Any, **named: Any) -> Any:
            return functional_call(model, dict(zip(names, own, strict=True)), given, named)

        with _dropping(self.noises, drawn):
            return task.losses(forward(task, called, inputs, self.training.device), targets)


@dataclass(frozen=True)
class Tried:
    """What a trial found of a kind of models.

    Parameters
    ----------
    uses
        The names of dropout layers and the shapes of their inputs, in the order of a forward pass.
    written
        Whether gradients written out are those of autograd.
    """

    uses: tuple[tuple[str, tuple[int, ...]], ...]
    written: bool

    def applied(self, training: Training) -> Stackable:
        """Return the model of a training of this kind, as it is now, as a pure function."""
        noises = tuple(Noise(training.model.get_submodule(name), shape) for name, shape in self.uses)
        written = WrittenOut.of(training.model, training.task) if self.written else None
        return Stackable(training, noises, written)


def has_convolutions(model: nn.Module) -> bool:
    """Whether a model has convolutions, which a CPU takes one after the other, stacked or not."""
    return any(isinstance(layer, _CONVOLUTIONS) for layer in model.modules())


def examined(training: Training) -> Stackable:
    """Return the model of a training as a pure function, after a trial that leaves no trace.

    Raises
    ------
    NotStackable
        If the model or its task cannot be stacked.
    """
    inputs, targets = training.examples.to(training.device).batch(
        torch.arange(min(_TRIED, len(training.examples)))
    )
    inputs, rows = on_device(inputs, training.device), len(targets)
    model = training.model.train()
    before, buffers = GlobalState.now(), [b.detach().clone() for b in model.buffers()]
    try:
        with torch.no_grad():
            noises = tuple(_noises(training, inputs, rows))
            if _changed(model, buffers):
                raise NotStackable("its layers keep statistics while they train")
            with _layers_off(noises):
                _try_forward(training, inputs, rows)
    finally:
        _put_back(model, buffers)
        before.put_back()
    found = Stackable(training, noises)
    return _try_gradients(found, (inputs, targets), rows)


def _noises(training: Training, inputs: Inputs, rows: int) -> Iterator[Noise]:
    """Yield the uses of dropout layers in a forward pass, in order."""
    seen: list[tuple[nn.Module, Tensor]] = []
    with ExitStack() as stack:
        for layer in training.model.modules():
            if isinstance(layer, _DROPOUTS) and layer.p > 0 and layer.training:
                handle = layer.register_forward_pre_hook(lambda own, given: seen.append((own, given[0])))
                stack.callback(handle.remove)
        training.task.forward(training.model, inputs)
    for layer, given in seen:
        if not given.dim() or len(given) != rows:
            raise NotStackable("a dropout layer's inputs have not the batch as their first dimension")
        yield Noise(layer, tuple(given.shape[1:]))


def _try_forward(training: Training, inputs: Inputs, rows: int) -> None:
    """Refuse a model that draws numbers besides dropout, or whose outputs depend on other examples."""
    state = torch.random.get_rng_state()
    alone = training.task.forward(training.model, inputs)
    padded = training.task.forward(training.model, _with_zeros(inputs))
    if not torch.equal(torch.random.get_rng_state(), state):
        raise NotStackable("it draws random numbers elsewhere than in dropout layers")
    if (alone.shape[:1], padded.shape[:1]) != ((rows,), (rows + 1,)):
        raise NotStackable("its outputs are not one row per example")
    if not torch.allclose(alone, padded[:rows], rtol=1e-3, atol=1e-4, equal_nan=True):
        raise NotStackable("its outputs depend on the other examples of a batch")


def _with_zeros(inputs: Inputs) -> Inputs:
    """Return inputs with one more, of zeros."""
    if isinstance(inputs, Tensor):
        return torch.cat([inputs, torch.zeros_like(inputs[:1])])
    return {name: torch.cat([part, torch.zeros_like(part[:1])]) for name, part in inputs.items()}


def _changed(model: nn.Module, buffers: list[Tensor]) -> bool:
    return any(not torch.equal(now, before) for now, before in zip(model.buffers(), buffers, strict=True))


def _put_back(model: nn.Module, buffers: list[Tensor]) -> None:
    """Give buffers their values back."""
    with torch.no_grad():
        for buffer, value in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(value)


def _try_gradients(found: Stackable, batch: Batch, rows: int) -> Stackable:
    """Refuse what torch cannot batch; have the gradients written out where that gives autograd's."""
    own = found.training.parameters
    if any(p._post_accumulate_grad_hooks for p in own):
        raise NotStackable("its parameters have hooks that act when a gradient is there")
    if len({p.dtype for p in own}) > 1:
        raise NotStackable("its parameters are numbers of several types")
    inputs, targets = batch
    two = [torch.stack([p.detach(), p.detach()]) for p in own]
    with seeded_layers(torch_generator(0, "trial"), found.training.device):
        noises = [noise.draw(rows, two[0]) for noise in found.noises]
    weights = torch.full((2, rows), 1 / rows, device=found.training.device)
    private = found.training.mechanism is not None
    if private and any(_hooks(p) for p in own):
        raise NotStackable("hooks change its gradients, which a private training forms by itself")
    if written := _written(found, batch, weights, noises):
        return written
    doubled = _doubled(inputs) if isinstance(inputs, Mapping) else _twice(inputs)
    try:
        twice = (doubled, _twice(targets)), [_twice(n) for n in noises]
        if private:
            found.of_examples(two, *twice)
        else:
            found.by_autograd(two, twice[0], weights, twice[1])
    except Exception as error:
        line = str(error).strip().partition("\n")[0][:120]
        raise NotStackable(f"torch cannot batch it ({type(error).__name__}: {line})") from error
    return found


def _written(found: Stackable, batch: Batch, weights: Tensor, noises: list[Tensor]) -> Stackable | None:
    """Return a model with its gradients written out, if that can be done and gives those of autograd.

    It is tried on numbers that are nobody's data, and without `torch.func`, which takes long to load.
    """
    own, inputs = found.training, batch[0]
    written = WrittenOut.of(own.model, own.task)
    if written is None or not isinstance(inputs, Tensor):
        return None
    made, targets = _made(inputs), _made(batch[1])
    parameters = [torch.stack([p.detach(), p.detach()]) for p in own.parameters]
    into = [torch.full_like(p, torch.nan) for p in parameters]
    drawn = [_twice(n) for n in noises]
    try:
        with _layers_off(found.noises), _dropping(found.noises, noises):
            losses = own.task.losses(forward(own.task, own.model, made, own.device), targets)
        chain, batch = written.on(parameters, into), (_twice(made), _twice(targets))
        if own.mechanism is None:
            expected = torch.autograd.grad((losses * weights[0]).sum(), own.parameters)
            with torch.no_grad():
                chain.gradients(batch, weights, drawn)
        else:
            expected, half = _half_clipped(losses, own.parameters)
            with torch.no_grad():
                chain.clipped_sums(batch, torch.ones_like(weights), drawn, half.expand(2))
    except Exception:  # noqa: BLE001 (shapes that a layer written out does not take, or a task's own code)
        return None
    apart = [a - b for a, b in zip(into, expected, strict=True)]
    close = _length(apart) <= _AGREE * _length([_twice(g) for g in expected])
    return replace(found, written=written) if close else None


def _half_clipped(losses: Tensor, parameters: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the sum of the examples' gradients, each clipped to half the longest one's norm, and that."""
    each = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    norms = torch.tensor([_length(gradients) for gradients in each], device=losses.device)
    half = norms.max() / 2
    factors = clip_factors(norms, half)
    scaled = [[factor * g for g in gradients] for factor, gradients in zip(factors, each, strict=True)]
    return tuple(torch.stack(parts).sum(dim=0) for parts in zip(*scaled, strict=True)), half


def _unsqueezed(inputs: Inputs) -> Inputs:
    """Return the inputs of one example as a batch."""
    if isinstance(inputs, Tensor):
        return inputs.unsqueeze(0)
    return {name: part.unsqueeze(0) for name, part in inputs.items()}


def _made(part: Any) -> Any:
    """Return numbers of a tensor's shape; whole ones, such as labels, stay as they are."""
    if not part.is_floating_point():
        return part
    drawn = torch.randn(part.shape, generator=torch_generator(0, "trial"))
    return drawn.to(part.device, part.dtype)


def _length(tensors: Sequence[Tensor]) -> float:
    """Return the norm of tensors together."""
    return float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t) for t in tensors])))


def _twice(tensor: Tensor) -> Tensor:
    return tensor.expand(2, *tensor.shape)


def _doubled(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {name: _twice(part) for name, part in inputs.items()}


def _hooks(parameter: nn.Parameter) -> list[Any]:
    """Return what is done to a parameter's gradient, such as holding pruned weights at zero."""
    return list((parameter._backward_hooks or {}).values())


@contextmanager
def _layers_off(noises: tuple[Noise, ...]) -> Iterator[None]:
    """Have dropout layers hand on their inputs."""
    layers = [noise.layer for noise in noises]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


@contextmanager
def _dropping(noises: tuple[Noise, ...], drawn: list[Tensor]) -> Iterator[None]:
    """Have dropout layers that are off multiply their outputs by given numbers, use by use."""
    left = iter(drawn)
    with ExitStack() as stack:
        for layer in dict.fromkeys(noise.layer for noise in noises):
            handle = layer.register_forward_hook(lambda own, given, output: output * next(left))
            stack.callback(handle.remove)
        yield

"""Many trainings as one batched computation: the parameters of k clients along a first axis.

Each client's batches, dropout and variations are drawn as when it trains by itself, from its own generators
in the same order; a batch that is smaller than the others' is filled up with examples of weight 0. Clients
are in the order of their steps, so that those that still train are always the first ones. The results are
those of one training after the other but for the order of summation inside a matrix product, so not the same
bits.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.client.stackable import NotStackable, Stackable, examined, has_convolutions
from strategies.client.training import (
    Batch,
    GradientAdjustment,
    StepState,
    Tensors,
    Training,
    TrainStats,
    batches,
    local_steps,
    make_optimizer,
    set_rate,
)
from strategies.core.examples import Inputs, TensorExamples
from strategies.core.seeds import GlobalState

_MODELS_KEPT = 64
"""Kinds of trainings of which a process remembers whether they can be stacked."""
_AT_ONCE = 2**20
"""Bytes of inputs of a training that are taken at once."""
_NOTHING_BESIDE = "no other training is like it"
_TINY = 1e-6
"""As `torch.nn.utils.clip_grad_norm_` has it."""
_known: dict[tuple[object, ...], Stackable | str] = {}

_looks: "WeakKeyDictionary[nn.Module, _Look]" = WeakKeyDictionary()

Kind = tuple[object, ...]
"""What trainings must have in common to be stacked."""


@dataclass(frozen=True, eq=False)
class Request:
    """A training that waits to be carried out.

    Parameters
    ----------
    layers
        The state of torch's global generators, from which its layers draw.
    """

    training: Training
    layers: GlobalState


@dataclass(frozen=True, eq=False)
class Trained:
    """A training that was carried out; its model holds the parameters after it.

    `layers` is from where its layers draw on.
    """

    stats: TrainStats
    layers: GlobalState


@dataclass(frozen=True)
class Alone:
    """Why a training is to be carried out by itself."""

    reason: str


@dataclass(frozen=True, eq=False)
class Failed:
    """What a client's data raised."""

    error: BaseException


Outcome = Trained | Alone | Failed


@dataclass(frozen=True)
class Limits:
    """How many trainings are stacked.

    Parameters
    ----------
    most
        At a time; one at a time if that is 1.
    where_faster
        Whether trainings that are no faster side by side are taken one by one.
    """

    most: int = 64
    where_faster: bool = False


def train_stacked(requests: Sequence[Request], limits: Limits | None = None) -> list[Outcome]:
    """Carry out trainings, those of a kind side by side; return what became of each.

    Which ones are together depends on the requests and their order alone.
    """
    limits = limits or Limits()
    outcomes: dict[int, Outcome] = {}
    for kind, numbers in _by_kind(requests).items():
        try:
            model = _model_of(kind, requests[numbers[0]].training, limits)
        except NotStackable as reason:
            outcomes.update((number, Alone(str(reason))) for number in numbers)
            continue
        for first in range(0, len(numbers), limits.most):
            chunk = numbers[first : first + limits.most]
            found = _attempt(model, [requests[number] for number in chunk])
            outcomes.update(zip(chunk, found, strict=True))
    return [outcomes[number] for number in range(len(requests))]


def _by_kind(requests: Sequence[Request]) -> dict[Kind, list[int]]:
    """Return which requests are alike enough to be stacked, by their positions."""
    found: dict[Kind, list[int]] = {}
    for number, request in enumerate(requests):
        training = request.training
        try:
            kind = (*_kind_of_model(training), *_kind_of_work(training))
        except Exception:  # noqa: BLE001 (data that cannot be read fail in the client's own training)
            kind = ("unreadable", number)
        found.setdefault(kind, []).append(number)
    return found


@dataclass(frozen=True, eq=False)
class _Look:
    """What a model looked like when its kind was last told: what is trained of it, and what is not."""

    trained: list[nn.Parameter]
    fixed: list[Tensor]
    versions: list[int]
    kind: Kind

    @staticmethod
    def of(training: Training) -> "_Look":
        model = training.model
        fixed = [p for p in model.parameters() if not p.requires_grad] + list(model.buffers())
        shapes = tuple((n, tuple(p.shape), p.dtype, p.requires_grad) for n, p in model.named_parameters())
        digest = hashlib.sha256()
        for tensor in fixed:
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        kind = (type(model), repr(model), shapes, digest.digest())
        return _Look(training.parameters, fixed, [t._version for t in fixed], kind)

    def still_holds(self, training: Training) -> bool:
        """Whether the model looks the same."""
        same = len(self.trained) == len(training.parameters) and all(
            a is b for a, b in zip(self.trained, training.parameters, strict=True)
        )
        return same and self.versions == [t._version for t in self.fixed]


def _kind_of_model(training: Training) -> Kind:
    look = _looks.get(training.model)
    if look is None or not look.still_holds(training):
        look = _looks[training.model] = _Look.of(training)
    return look.kind


def _kind_of_work(training: Training) -> Kind:
    settings, data = training.settings, training.examples
    rates = training.rates or [settings.learning_rate]
    steady = all(rate == rates[0] for rate in rates)
    if isinstance(data, TensorExamples):
        inputs: Inputs = data.x
        targets = data.y
    else:
        inputs, targets = data.batch(torch.zeros(1, dtype=torch.int64))
    parts = {"": inputs} if isinstance(inputs, Tensor) else inputs
    form = tuple((name, part.shape[1:], part.dtype) for name, part in sorted(parts.items()))
    optimizer = settings.optimizer, settings.momentum, settings.nesterov, settings.weight_decay
    return (
        training.task,
        training.device,
        optimizer,
        settings.max_gradient_norm,
        rates[0] if steady else tuple(rates),
        form,
        (targets.shape[1:], targets.dtype),
    )


def _model_of(kind: Kind, training: Training, limits: Limits) -> Stackable:
    if limits.most == 1 or kind[0] == "unreadable":
        raise NotStackable(_NOTHING_BESIDE)
    if limits.where_faster and training.device.type == "cpu" and has_convolutions(training.model):
        raise NotStackable("a CPU takes convolutions one after the other, stacked or not")
    if kind not in _known:
        while len(_known) >= _MODELS_KEPT:
            del _known[next(iter(_known))]
        try:
            _known[kind] = examined(training)
        except NotStackable as reason:
            _known[kind] = str(reason)
        except Exception as error:
            raise NotStackable(f"its data or model failed when tried ({type(error).__name__})") from error
    found = _known[kind]
    if isinstance(found, str):
        raise NotStackable(found)
    return found


def _attempt(model: Stackable, requests: Sequence[Request]) -> list[Outcome]:
    """Carry out trainings at once; if that fails, in halves, so that one cannot spoil the others."""
    if len(requests) == 1:
        return [Alone(_NOTHING_BESIDE)]
    before = [request.training.generator.get_state() for request in requests]
    try:
        return _Stack(model, requests).run()
    except Exception:  # noqa: BLE001 (what one client's data or a user's model raise, each raises by itself)
        for request, state in zip(requests, before, strict=True):
            request.training.generator.set_state(state)
        half = len(requests) // 2
        return [*_attempt(model, requests[:half]), *_attempt(model, requests[half:])]


@dataclass(eq=False)
class _Member:
    """A client in a stack; `layers` is what its layers will draw next."""

    request: Request
    layers: GlobalState
    batches: Iterator[Batch] | None = None
    error: BaseException | None = None

    @property
    def draws(self) -> bool:
        """Whether its data may draw from torch's global generators."""
        return not isinstance(self.request.training.examples, TensorExamples)


@dataclass(eq=False)
class _Engine:
    """The engine of a stack: as many models as the batch has rows, the first ones of all."""

    model: Stackable
    settings: TrainSettings
    optimizer: torch.optim.Optimizer
    parameters: list[Tensor]
    weights: Tensor = field(default_factory=lambda: torch.zeros(0))
    noises: list[Tensor] = field(default_factory=list)
    losses: Tensor = field(default_factory=lambda: torch.zeros(0))

    @staticmethod
    def of(model: Stackable, settings: TrainSettings, parameters: list[Tensor]) -> "_Engine":
        return _Engine(
            model,
            settings,
            make_optimizer(parameters, settings),  # type: ignore[arg-type]  # Tensors are leaves as well
            parameters,
            losses=torch.zeros(len(parameters[0]), device=parameters[0].device),
        )

    def keep(self, count: int) -> None:
        """Go on with the first models alone; what the optimiser knows of them stays."""
        if count == len(self.parameters[0]):
            return
        kept = [p[:count] for p in self.parameters]
        optimizer = make_optimizer(kept, self.settings)  # type: ignore[arg-type]
        for before, after in zip(self.parameters, kept, strict=True):
            state = self.optimizer.state.get(before, {})
            optimizer.state[after] = {
                key: value[:count] if isinstance(value, Tensor) and value.shape == before.shape else value
                for key, value in state.items()
            }
        self.optimizer, self.parameters = optimizer, kept

    def gradients(self, parameters: Tensors, batch: Batch) -> tuple[Tensors, Tensor]:
        """Return the gradients and losses of each model."""
        found, losses = self.model.gradients(list(parameters), batch, self.weights, self.noises)
        self.losses[: len(losses)] += losses
        if self.settings.max_gradient_norm > 0:
            found = clipped_each(found, self.settings.max_gradient_norm)
        return found, losses

    def step(self, parameters: Tensors, gradients: Tensors, rate: float | None) -> Tensors:
        """Take the optimiser's step, in place."""
        if rate is not None:
            set_rate(self.optimizer, rate)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        return parameters


def clipped_each(gradients: Sequence[Tensor], norm: float) -> list[Tensor]:
    """Return gradients of k models, shape [k, ...] each, each model's scaled down together to a norm."""
    squares = torch.stack([g.flatten(1).square().sum(dim=1) for g in gradients])  # [parameters, k]
    factors = (norm / (squares.sum(dim=0).sqrt() + _TINY)).clamp(max=1.0)
    return [g * along_first(factors, g) for g in gradients]


def along_first(values: Tensor, like: Tensor) -> Tensor:
    """Return values of shape [k] so that they multiply a tensor of shape [k, ...]."""
    return values.view(-1, *[1] * (like.dim() - 1))


class _Stack:
    """Trainings of a kind, side by side."""

    def __init__(self, model: Stackable, requests: Sequence[Request]) -> None:
        self._order = sorted(range(len(requests)), key=lambda i: -requests[i].training.steps)
        members = [requests[i] for i in self._order]
        self._members = [_Member(r, r.layers) for r in members]
        self._model, self._training = model, members[0].training
        self._filler: Batch | None = None

    def run(self) -> list[Outcome]:
        """Return what became of each training, in the order of the requests."""
        models = [m.request.training.parameters for m in self._members]
        stacked = [torch.stack([p.detach() for p in each]) for each in zip(*models, strict=True)]
        engine = _Engine.of(self._model, self._training.settings, stacked)
        adjust = stacked_adjustment([m.request.training.adjust for m in self._members])
        with torch.no_grad():
            for step in range(self._training.steps):
                active = sum(m.request.training.steps > step for m in self._members)
                engine.keep(active)
                batch = self._drawn(engine, active)
                own = None if adjust is None else adjust.first(active)
                rates = self._training.rates
                now = None if rates is None else [rates[step]]
                local_steps(engine.parameters, [batch], own, engine, now)
        outcomes: dict[int, Outcome] = {}
        for place, (number, member) in enumerate(zip(self._order, self._members, strict=True)):
            outcomes[number] = _outcome(member, [p[place] for p in stacked], engine.losses[place])
        return [outcomes[number] for number in range(len(outcomes))]

    def _drawn(self, engine: _Engine, active: int) -> Batch:
        """Return the next batch of each of the first members; tell the engine of weights and dropout."""
        members = self._members[:active]
        drawn = [self._next(member, engine.parameters[0]) for member in members]
        sizes = [len(targets) for (_, targets), _ in drawn]
        most, device = max(sizes), engine.parameters[0].device
        counts = torch.tensor(sizes, device=device).unsqueeze(1)  # [k, 1]
        engine.weights = (torch.arange(most, device=device) < counts) / counts
        uses = zip(*(noises for _, noises in drawn), strict=True)
        engine.noises = [torch.stack([_filled(n, most) for n in each]) for each in uses]
        return _together([batch for batch, _ in drawn], most)

    def _next(self, member: _Member, like: Tensor) -> tuple[Batch, list[Tensor]]:
        """Return a member's next batch, and the numbers of its dropout layers."""
        if member.error is None:
            if not member.draws and not self._model.noises:
                return self._batch(member), []
            outer = GlobalState.now()
            member.layers.put_back()
            try:
                batch = self._batch(member)
                noises = [noise.draw(len(batch[1]), like) for noise in self._model.noises]
                member.layers = GlobalState.now()
                return batch, noises
            finally:
                outer.put_back()
        batch = self._batch(member)
        shapes = [(len(batch[1]), *noise.shape) for noise in self._model.noises]
        return batch, [torch.ones(shape, dtype=like.dtype, device=like.device) for shape in shapes]

    def _batch(self, member: _Member) -> Batch:
        """Return a member's next batch; another one's in its place once its data have failed."""
        if member.error is None:
            try:
                member.batches = member.batches or _batches_of(member.request.training)
                batch = next(member.batches)
            except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a client's data raise is its own)
                member.error = error
            else:
                self._filler = self._filler or batch
                return batch
        if self._filler is None:  # The first one has failed, too
            self._filler = self._training.examples.to(self._training.device).batch(torch.zeros(1).long())
        return self._filler


def _batches_of(training: Training) -> Iterator[Batch]:
    """Return the batches of a training; those of a small one are taken from its examples all at once."""
    data, settings = training.examples, training.settings
    rows = training.steps * settings.batch_size
    if not isinstance(data, TensorExamples) or rows * data.x[:1].nbytes > _AT_ONCE:
        return training.batches()
    indices = list(batches(len(data), settings.batch_size, training.steps, training.generator))
    sizes = [len(index) for index in indices]
    inputs, targets = data.to(training.device).batch(torch.cat(indices))
    return zip(torch.split(inputs, sizes), torch.split(targets, sizes), strict=True)


def _outcome(member: _Member, parameters: Tensors, loss: Tensor) -> Outcome:
    """Put what was trained into a member's model."""
    if member.error is not None:
        return Failed(member.error)
    training = member.request.training
    if not all(layer.training for layer in training.model.modules()):
        training.model.train()
    with torch.no_grad():
        for own, value in zip(training.parameters, parameters, strict=True):
            own.copy_(value)
    return Trained(TrainStats(training.steps, float(loss) / training.steps), member.layers)


def _filled(tensor: Tensor, rows: int) -> Tensor:
    """Return a tensor with copies of its first row behind it, up to that many."""
    missing = rows - len(tensor)
    return tensor if not missing else torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])])


def _together(batches: Sequence[Batch], rows: int) -> Batch:
    """Return batches along a first axis, each filled up to that many rows."""
    targets = torch.stack([_filled(targets, rows) for _, targets in batches])
    first = batches[0][0]
    if isinstance(first, Tensor):
        return torch.stack([_filled(_tensor(inputs), rows) for inputs, _ in batches]), targets
    named: dict[str, Tensor] = {
        name: torch.stack([_filled(_part(inputs, name), rows) for inputs, _ in batches]) for name in first
    }
    return named, targets


def _tensor(inputs: Inputs) -> Tensor:
    if not isinstance(inputs, Tensor):
        raise TypeError("inputs of one part and of several")
    return inputs


def _part(inputs: Inputs, name: str) -> Tensor:
    if isinstance(inputs, Tensor):
        raise TypeError("inputs of one part and of several")
    return inputs[name]


@dataclass(frozen=True, eq=False)
class StackedStates:
    """The parts that an algorithm has in the local steps of k clients, as one (see `StepState`).

    Parameters
    ----------
    mu
        Shape [k].
    anchor, correction
        Shape [k, ...] each; empty if no client has any.
    """

    mu: Tensor
    anchor: Tensors
    correction: Tensors

    def first(self, count: int) -> GradientAdjustment:
        """Return the adjustment of the first clients."""
        mu, anchor = self.mu[:count], [a[:count] for a in self.anchor]
        correction = [c[:count] for c in self.correction]

        def adjust(parameters: Tensors, gradients: Tensors) -> Tensors:
            if anchor:
                pairs = zip(parameters, anchor, gradients, strict=True)
                gradients = [g + along_first(mu, g) * (w - a) for w, a, g in pairs]
            if correction:
                gradients = [g + c for g, c in zip(gradients, correction, strict=True)]
            return gradients

        return adjust


@dataclass(frozen=True, eq=False)
class EachItsOwn:
    """Adjustments of k clients that are functions of whatever kind, called one after the other."""

    adjustments: Sequence[GradientAdjustment | None]

    def first(self, count: int) -> GradientAdjustment:
        """Return the adjustment of the first clients."""

        def adjust(parameters: Tensors, gradients: Tensors) -> Tensors:
            found = [
                [g[i] for g in gradients]
                if own is None
                else own([p[i] for p in parameters], [g[i] for g in gradients])
                for i, own in enumerate(self.adjustments[:count])
            ]
            return [torch.stack(list(each)) for each in zip(*found, strict=True)]

        return adjust


def stacked_adjustment(
    adjustments: Sequence[GradientAdjustment | None],
) -> StackedStates | EachItsOwn | None:
    """Return the adjustments of k clients as one; None if there are none."""
    if all(adjust is None for adjust in adjustments):
        return None
    if not all(adjust is None or isinstance(adjust, StepState) for adjust in adjustments):
        return EachItsOwn(adjustments)
    states = [a if isinstance(a, StepState) else StepState() for a in adjustments]
    anchors = [state.anchor if state.mu > 0 else () for state in states]
    device = next(t.device for s in states for t in (*s.anchor, *s.correction))
    mu = torch.tensor([state.mu for state in states], device=device)
    return StackedStates(mu, _stacked(anchors), _stacked([state.correction for state in states]))


def _stacked(parts: Sequence[Tensors]) -> Tensors:
    """Return tensors of k clients along a first axis; zeros for those that have none."""
    shown = next((part for part in parts if part), ())
    return [
        torch.stack([part[i] if part else torch.zeros_like(like) for part in parts])
        for i, like in enumerate(shown)
    ]

"""Many trainings as one batched computation: the parameters of k clients along a first axis.

What becomes of each training. `kinds` says which are alike enough to go together, `stacked_data` draws their
batches, `stacked_steps` takes their steps. Clients are in the order of their steps, so that those that still
train are always the first ones. The results are those of one training after the other but for the order of
summation inside a matrix product, so not the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from strategies.client.kinds import UNREADABLE, Kind, by_kind, remember
from strategies.client.precision import computed_in
from strategies.client.stackable import NotStackable, Stackable, Tried, examined, has_convolutions
from strategies.client.stacked_data import Member, Request, feed_of
from strategies.client.stacked_steps import Steps, as_tensors, stacked_adjustment
from strategies.client.training import Training, TrainStats, local_steps
from strategies.core.seeds import GlobalState

_CACHED_BYTES = 2**23
"""Of the parameters of models that a CPU takes at once, where their gradients are written out."""
_OF_EXAMPLES_BYTES = 2**28
"""Of the gradients of single examples that are held at once, where they are not written out."""
_NOTHING_BESIDE = "no other training is like it"
_known: dict[Kind, Tried | str] = {}
"""What was found of them, without any model: those may have changed since."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A training that was carried out.

    `layers` is from where its layers draw on, None if nothing was drawn; `parameters` is what was trained, as
    one vector, shape [P].
    """

    stats: TrainStats
    layers: GlobalState | None
    parameters: Tensor


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

    No model is changed: `put_into` has one hold what was trained. Which ones are together depends on the
    requests and their order alone.
    """
    limits = limits or Limits()
    outcomes: dict[int, Outcome] = {}
    for kind, numbers in by_kind(requests).items():
        try:
            first = requests[numbers[0]].training
            model = _model_of(kind, first, limits)
            longest = max(len(requests[number].training.examples) for number in numbers)
            most = _at_once(model, first, limits, longest)
        except NotStackable as reason:
            outcomes.update((number, Alone(str(reason))) for number in numbers)
            continue
        for chunk in _parts(numbers, most):
            with computed_in(first.precision, first.device):
                found = _attempt(model, [requests[number] for number in chunk])
            outcomes.update(zip(chunk, found, strict=True))
    return [outcomes[number] for number in range(len(requests))]


def _at_once(model: Stackable, training: Training, limits: Limits, examples: int) -> int:
    """Return how many trainings of a kind, of at most so many examples, are one computation at most."""
    size = sum(p.nbytes for p in training.parameters)
    if model.written is not None:
        if training.device.type != "cpu":
            return limits.most
        return max(2, min(limits.most, _CACHED_BYTES // size))
    if training.mechanism is None:
        return limits.most
    of_client = size * min(examples, 2 * training.settings.batch_size)
    if 2 * of_client > _OF_EXAMPLES_BYTES:
        raise NotStackable(f"its examples' gradients take {of_client >> 20} MB a client")
    return min(limits.most, _OF_EXAMPLES_BYTES // of_client)


def _parts(numbers: Sequence[int], most: int) -> list[Sequence[int]]:
    """Return numbers in parts of nearly one size, of at most so many."""
    count = -(-len(numbers) // most)
    ends = [len(numbers) * part // count for part in range(count + 1)]
    return [numbers[start:end] for start, end in pairwise(ends)]


def _model_of(kind: Kind, training: Training, limits: Limits) -> Stackable:
    if reason := _objection(kind, training, limits):
        raise NotStackable(reason)
    if kind not in _known:
        try:
            with computed_in(training.precision, training.device):
                remember(_known, kind, examined(training).tried)
        except NotStackable as reason_found:
            remember(_known, kind, str(reason_found))
        except Exception as error:
            raise NotStackable(f"its data or model failed when tried ({type(error).__name__})") from error
    found = _known[kind]
    if isinstance(found, str):
        raise NotStackable(found)
    return found.applied(training)


def _objection(kind: Kind, training: Training, limits: Limits) -> str:
    """Return what is against stacking trainings of a kind before one is tried; empty: nothing."""
    if limits.most == 1 or kind[0] == UNREADABLE:
        return _NOTHING_BESIDE
    if training.mechanism is not None and (reason := training.mechanism.alone(training)):
        return reason
    if limits.where_faster and training.device.type == "cpu" and has_convolutions(training.model):
        return "a CPU takes convolutions one after the other, stacked or not"
    return ""


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


class _Stack:
    """Trainings of a kind, side by side."""

    def __init__(self, model: Stackable, requests: Sequence[Request]) -> None:
        self._order = sorted(range(len(requests)), key=lambda i: -requests[i].training.steps)
        self._members = [Member(requests[i]) for i in self._order]
        self._model, self._training = model, self._members[0].training

    def run(self) -> list[Outcome]:
        """Return what became of each training, in the order of the requests."""
        shapes = [p.shape for p in self._training.parameters]
        with torch.no_grad():
            own = [m.training.mechanism for m in self._members]
            mechanisms = [mechanism for mechanism in own if mechanism is not None]
            steps = Steps(self._model, self._training.settings, shapes, self._begun(), mechanisms)
            adjust = stacked_adjustment([member.training.adjust for member in self._members])
            feed, active = feed_of(self._members, self._model, steps.rows), len(self._members)
            for step in range(self._training.steps):
                while self._members[active - 1].training.steps <= step:
                    active -= 1
                steps.keep(active)
                drawn = feed.next(step, active)
                steps.weights, steps.noises = drawn.weights, drawn.noises
                adjusted = None if adjust is None else adjust.first(active)
                rates = self._training.rates
                now = None if rates is None else [rates[step]]
                local_steps(steps.parameters, [drawn.batch], adjusted, steps, now)
        found = zip(self._order, self._members, steps.rows, steps.losses.tolist(), strict=True)
        outcomes = {number: _outcome(member, row, loss) for number, member, row, loss in found}
        return [outcomes[number] for number in range(len(outcomes))]

    def _begun(self) -> Tensor:
        """Return the parameters before the first step, shape [k, P]: of one model, or of each its own."""
        starts = [_start(member.request) for member in self._members]
        if all(start is starts[0] for start in starts):
            return starts[0].repeat(len(starts), 1)
        return torch.stack(starts)


def _start(request: Request) -> Tensor:
    if request.start is not None:
        return request.start.to(request.training.device)
    return torch.cat([p.detach().reshape(-1) for p in request.training.parameters])


def _outcome(member: Member, parameters: Tensor, loss: float) -> Outcome:
    if member.error is not None:
        return Failed(member.error)
    training = member.training
    return Trained(TrainStats(training.steps, loss / training.steps), member.layers, parameters)


def put_into(model: nn.Module, trained: Trained) -> None:
    """Have a model hold what was trained of it; it is in training mode then, as after its own training."""
    if not all(layer.training for layer in model.modules()):
        model.train()
    own = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter, (value,) in zip(
            own, as_tensors(trained.parameters[None], [p.shape for p in own]), strict=True
        ):
            parameter.copy_(value)

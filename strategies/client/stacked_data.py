"""The batches of many trainings as one, step by step; the members of a stack.

Each client's batches, dropout and variations are drawn as when it trains by itself, from its own generators
in the same order; a batch that is smaller than the others' is filled up with examples of weight 0.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from strategies.client.stackable import Stackable
from strategies.client.training import Batch, ExampleMechanism, Training
from strategies.core.examples import Inputs, TensorExamples
from strategies.core.seeds import GlobalState

_AT_ONCE = 2**20
"""Bytes of inputs of a training that are taken at once."""


@dataclass(frozen=True, eq=False)
class Request:
    """A training that waits to be carried out.

    Parameters
    ----------
    layers
        Returns the state of torch's global generators, from which its layers draw; called if they do.
    start
        What is trained as one vector, shape [P], before the first step; None: what the model holds. Models
        that begin alike are best given the same one.
    """

    training: Training
    layers: Callable[[], GlobalState]
    start: Tensor | None = None


@dataclass(eq=False)
class Member:
    """A client in a stack; `layers` is what its layers will draw next, None before the first."""

    request: Request
    layers: GlobalState | None = None
    batches: Iterator[Batch] | None = None
    error: BaseException | None = None

    @property
    def training(self) -> Training:
        """What it asked for."""
        return self.request.training

    @property
    def draws(self) -> bool:
        """Whether its data may draw from torch's global generators."""
        return not isinstance(self.training.examples, TensorExamples)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Have torch's global generators be the client's own."""
        outer = GlobalState.now()
        (self.layers or self.request.layers()).put_back()
        try:
            yield
            self.layers = GlobalState.now()
        finally:
            outer.put_back()


@dataclass(frozen=True, eq=False)
class Drawn:
    """A batch of k clients, shape [k, n, ...], the weights of its examples, [k, n], and dropout's numbers.

    The weights of private trainings are 1 for an example, and 0 for what fills a batch up.
    """

    batch: Batch
    weights: Tensor
    noises: list[Tensor]


class Feed(Protocol):
    """Draws the batches of a stack."""

    def next(self, step: int, active: int) -> Drawn:
        """Return the next batch of the first members; `step` counts from 0."""


def feed_of(members: Sequence[Member], model: Stackable, like: Tensor) -> Feed:
    """Return what draws the batches of members, whose parameters are `like` a tensor.

    The members are in the order of their steps, the longest first.
    """
    mechanisms = [m.training.mechanism for m in members if m.training.mechanism is not None]
    if mechanisms:
        return _Sampled(members, mechanisms, model, like)
    if any(member.draws for member in members):
        return _OneByOne(members, model, like)
    return _Gathered(members, model, like)


@final
class _Order:
    """The order in which a training takes its examples, drawn as `training.batches` does."""

    def __init__(self, training: Training) -> None:
        data = training.examples
        assert isinstance(data, TensorExamples)
        self._examples = data.to(training.device)
        self._size, self._batch = len(data), training.settings.batch_size
        self._per_epoch = -(-self._size // self._batch)
        self._generator = training.generator
        self._left = torch.zeros(0, dtype=torch.int64)
        self.steps = training.steps

    def rows(self, step: int) -> int:
        """Return the size of the batch of a step."""
        last = step % self._per_epoch == self._per_epoch - 1
        return self._size - self._batch * (self._per_epoch - 1) if last else self._batch

    def put(self, widths: Sequence[int], first: int, inputs: Tensor, targets: Tensor) -> None:
        """Write the examples of some steps from a first one on, each filled up to a width."""
        sizes = [self.rows(step) for step in range(first, min(first + len(widths), self.steps))]
        index = self._taken(sum(sizes))
        if sizes != widths[: len(sizes)]:
            index = _padded(index, sizes, widths)
        there, rows = index.to(self._examples.y.device), len(index)
        torch.index_select(self._examples.x, 0, there, out=inputs[:rows])
        torch.index_select(self._examples.y, 0, there, out=targets[:rows])

    def _taken(self, rows: int) -> Tensor:
        """Return the positions of the next examples."""
        parts, found = [self._left], len(self._left)
        while found < rows:
            parts.append(torch.randperm(self._size, generator=self._generator))
            found += self._size
        whole = torch.cat(parts)
        self._left = whole[rows:]
        return whole[:rows]

    @property
    def like(self) -> TensorExamples:
        """The examples."""
        return self._examples


def _padded(index: Tensor, sizes: Sequence[int], widths: Sequence[int]) -> Tensor:
    """Return positions, split by sizes, each part with its first one behind it up to a width."""
    parts = zip(torch.split(index, list(sizes)), widths, strict=False)
    return torch.cat([_filled(part, width) for part, width in parts])


@final
class _Gathered:
    """Batches of examples that lie in memory: those of several steps are copied together at once."""

    def __init__(self, members: Sequence[Member], model: Stackable, like: Tensor) -> None:
        self._members, self._model, self._like = members, model, like
        self._orders = [_Order(member.training) for member in members]
        first, examples = members[0].training, self._orders[0].like
        batch = first.settings.batch_size
        self._window = max(1, min(first.steps, _AT_ONCE // max(1, batch * examples.x[:1].nbytes)))
        self._inputs = self._room(examples.x, self._window * batch)
        self._targets = self._room(examples.y, self._window * batch)
        self._starts: list[int] = []
        self._sizes: list[list[int]] = []
        self._counted: tuple[list[int], Tensor] = [], torch.zeros(0)

    def _room(self, like: Tensor, rows: int) -> Tensor:
        shape = (len(self._orders), rows, *like.shape[1:])
        return torch.empty(shape, dtype=like.dtype, device=like.device)

    def next(self, step: int, active: int) -> Drawn:
        """Return the next batch of the first members."""
        place = step % self._window
        if place == 0:
            self._gather(step, active)
        start, width = self._starts[place], self._starts[place + 1] - self._starts[place]
        batch = (part[:active, start : start + width] for part in (self._inputs, self._targets))
        inputs, targets = batch
        sizes = self._sizes[place]
        return Drawn((inputs, targets), self._weights(sizes), self._noises(sizes, width))

    def _gather(self, step: int, active: int) -> None:
        last = min(step + self._window, self._orders[0].steps)
        orders = self._orders[:active]
        self._sizes = [[o.rows(s) for o in orders if s < o.steps] for s in range(step, last)]
        widths = [max(sizes) for sizes in self._sizes]
        self._starts = [sum(widths[:i]) for i in range(len(widths) + 1)]
        for order, inputs, targets in zip(orders, self._inputs, self._targets, strict=False):
            order.put(widths, step, inputs, targets)

    def _weights(self, sizes: list[int]) -> Tensor:
        if sizes != self._counted[0]:
            self._counted = sizes, weights_of(sizes, self._like.device)
        return self._counted[1]

    def _noises(self, sizes: Sequence[int], width: int) -> list[Tensor]:
        if not self._model.noises:
            return []
        drawn = [_noises(m, self._model, n, self._like) for m, n in zip(self._members, sizes, strict=False)]
        return [torch.stack([_filled(noise, width) for noise in each]) for each in zip(*drawn, strict=True)]


@final
class _OneByOne:
    """Batches that every member draws by itself, step by step."""

    def __init__(self, members: Sequence[Member], model: Stackable, like: Tensor) -> None:
        self._members, self._model, self._like = members, model, like
        self._filler: Batch | None = None

    def next(self, step: int, active: int) -> Drawn:
        """Return the next batch of the first members."""
        drawn = [self._next(member) for member in self._members[:active]]
        sizes = [len(targets) for (_, targets), _ in drawn]
        most = max(sizes)
        uses = zip(*(noises for _, noises in drawn), strict=True)
        noises = [torch.stack([_filled(n, most) for n in each]) for each in uses]
        batch = _together([batch for batch, _ in drawn], most, _filled)
        return Drawn(batch, weights_of(sizes, self._like.device), noises)

    def _next(self, member: Member) -> tuple[Batch, list[Tensor]]:
        """Return a member's next batch, and the numbers of its dropout layers."""
        if member.error is None:
            with member.drawing():
                batch = self._batch(member)
            return batch, _noises(member, self._model, len(batch[1]), self._like)
        batch, like = self._batch(member), self._like
        shapes = [(len(batch[1]), *noise.shape) for noise in self._model.noises]
        return batch, [torch.ones(shape, dtype=like.dtype, device=like.device) for shape in shapes]

    def _batch(self, member: Member) -> Batch:
        """Return a member's next batch; another one's in its place once its data have failed."""
        if member.error is None:
            try:
                member.batches = member.batches or member.training.batches()
                batch = next(member.batches)
            except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a client's data raise is its own)
                member.error = error
            else:
                self._filler = self._filler or batch
                return batch
        if self._filler is None:  # The first one has failed, too
            first = self._members[0].training
            self._filler = first.examples.to(first.device).batch(torch.zeros(1).long())
        return self._filler


@final
class _Sampled:
    """Batches of private trainings, each of as many examples as its mechanism draws, or of none.

    What fills a batch up is zeros, not an example: none is looked at that was not drawn.
    """

    def __init__(
        self,
        members: Sequence[Member],
        mechanisms: Sequence[ExampleMechanism],
        model: Stackable,
        like: Tensor,
    ) -> None:
        self._members, self._model, self._like = members, model, like
        pairs = zip(members, mechanisms, strict=True)
        self._batches = [mechanism.batches(member.training) for member, mechanism in pairs]
        training = members[0].training
        inputs, targets = training.examples.to(training.device).batch(torch.zeros(1).long())
        none = inputs[:0] if isinstance(inputs, Tensor) else {n: part[:0] for n, part in inputs.items()}
        self._nothing: Batch = none, targets[:0]

    def next(self, step: int, active: int) -> Drawn:
        """Return the next batch of the first members."""
        pairs = zip(self._members[:active], self._batches, strict=False)
        drawn = [self._next(member, batches) for member, batches in pairs]
        sizes = torch.tensor([len(targets) for (_, targets), _ in drawn], device=self._like.device)
        most = max(1, int(sizes.max()))
        uses = zip(*(noises for _, noises in drawn), strict=True)
        noises = [torch.stack([_with_zeros(n, most) for n in each]) for each in uses]
        present = torch.arange(most, device=self._like.device) < sizes.unsqueeze(1)
        batch = _together([batch for batch, _ in drawn], most, _with_zeros)
        return Drawn(batch, present.to(self._like.dtype), noises)

    def _next(self, member: Member, batches: Iterator[Batch | None]) -> tuple[Batch, list[Tensor]]:
        """Return a member's next batch, of no example once its data have failed, and dropout's numbers."""
        batch = self._nothing if member.error is not None else self._batch(member, batches)
        rows = len(batch[1])
        if rows:
            return batch, _noises(member, self._model, rows, self._like)
        return batch, [self._like.new_zeros(0, *noise.shape) for noise in self._model.noises]

    def _batch(self, member: Member, batches: Iterator[Batch | None]) -> Batch:
        try:
            if not member.draws:
                return next(batches) or self._nothing
            with member.drawing():
                return next(batches) or self._nothing
        except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a client's data raise is its own)
            member.error = error
            return self._nothing


def _with_zeros(tensor: Tensor, rows: int) -> Tensor:
    """Return a tensor with rows of zeros behind it, up to that many."""
    return torch.cat([tensor, tensor.new_zeros(rows - len(tensor), *tensor.shape[1:])])


def _noises(member: Member, model: Stackable, rows: int, like: Tensor) -> list[Tensor]:
    """Return what a member's dropout layers multiply so many examples by."""
    if not model.noises:
        return []
    with member.drawing():
        return [noise.draw(rows, like) for noise in model.noises]


def weights_of(sizes: Sequence[int], device: torch.device) -> Tensor:
    """Return 1 / n for each of n examples and 0 behind them, shape [k, largest n].

    Examples
    --------
    >>> weights_of([2, 1], torch.device("cpu"))
    tensor([[0.5000, 0.5000],
            [1.0000, 0.0000]])
    """
    counts = torch.tensor(sizes, device=device).unsqueeze(1)  # [k, 1]
    return (torch.arange(max(sizes), device=device) < counts) / counts


def _filled(tensor: Tensor, rows: int) -> Tensor:
    """Return a tensor with copies of its first row behind it, up to that many."""
    missing = rows - len(tensor)
    return tensor if not missing else torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])])


def _together(batches: Sequence[Batch], rows: int, fill: Callable[[Tensor, int], Tensor]) -> Batch:
    """Return batches along a first axis, each filled up to that many rows."""
    targets = torch.stack([fill(targets, rows) for _, targets in batches])
    first = batches[0][0]
    if isinstance(first, Tensor):
        return torch.stack([fill(_tensor(inputs), rows) for inputs, _ in batches]), targets
    named: dict[str, Tensor] = {
        name: torch.stack([fill(_part(inputs, name), rows) for inputs, _ in batches]) for name in first
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

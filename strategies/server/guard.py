"""The guard: a reply is checked before it is used, and a bad one is rejected, counted and named.

Rejected are: NaN or Inf, wrong names or shapes, a missing or non-positive number of examples, more examples
than the client said it has, an entry so large that the client must have diverged, a change of a pruned
weight, and what the strategy itself cannot use. A rejected reply never ends a round. Whatever passes is
counted as accepted, logged, and aggregated: nothing is refused after the guard.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self, final

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.core import wire
from strategies.server.aggregation import MAX_ABS_UPDATE, ExactSum, largest_entry
from strategies.server.wrapper import StrategyWrapper, answers_of

_SIMULATION_SAYS = "Exception ClientAppException occurred. Message: "
"""What stands before an exception's own words, after Ray's traceback (flwr.clientapp.client_app)."""
_SIMULATION_ENDS = "'>"
"""What stands behind them (flwr.server.superlink.fleet.vce.vce_api)."""


@dataclass(frozen=True, eq=False)
class ClientUpdate:
    """One client's contribution to one round.

    Parameters
    ----------
    num_examples
        Positive; its weight in the average.
    delta
        New minus old parameters, shape [size], float32, finite.
    metrics
        The scalar metrics of the reply, without `num-examples`.
    records
        Further records of the reply that have the model's layout, by name, shape [size] each, finite.
    staleness
        Server steps that it is behind, as the server counts them.
    """

    client_id: str
    node_id: int
    num_examples: int
    delta: Tensor
    norm: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    records: Mapping[str, Tensor] = field(default_factory=dict)
    staleness: int = 0

    @property
    def reports(self) -> Mapping[str, Mapping[str, float]]:
        """What is known of single clients: their metrics by client-id."""
        return {self.client_id: self.metrics}

    def add_to(self, total: ExactSum) -> None:
        """Add the update, weighted by its examples."""
        total.add(self.delta, self.num_examples)


@dataclass(frozen=True, eq=False)
class SummedUpdate(ClientUpdate):
    """The contribution of several clients to one round, known only as a sum.

    The fields that a `ClientUpdate` has are those of the mean; it stands for no single client.

    Parameters
    ----------
    total
        Σ `fixed_point` of the weighted updates, shape [size], int64.
    weight
        What it is divided by.
    bits
        b of the fixed point.
    client_reports
        What clients reported in the clear, by client-id.
    """

    total: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    weight: float = 0.0
    bits: int = 0
    client_reports: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def reports(self) -> Mapping[str, Mapping[str, float]]:
        """What clients reported in the clear, by client-id."""
        return self.client_reports

    def add_to(self, total: ExactSum) -> None:
        """Add the sum."""
        total.add_sum(self.total, self.weight, self.bits)


@final
class CheckedReply(Message):
    """A reply that passed the guard; to Flower's own strategies an ordinary message."""

    update: ClientUpdate

    @classmethod
    def of(cls, message: Message, update: ClientUpdate) -> Self:
        """Return the message with its parsed update beside it."""
        checked = cls.__new__(cls)
        checked.__dict__.update(message.__dict__)
        checked.__dict__["update"] = update
        return checked


def all_checked(replies: Iterable[Message], user: str) -> Iterator[CheckedReply]:
    """Yield replies that passed the guard; RuntimeError where `user` was put outside of it."""
    for reply in replies:
        if not isinstance(reply, CheckedReply):
            raise RuntimeError(f"a reply was not checked; put {user} inside GuardedStrategy")
        yield reply
        del reply  # Not held while the next one arrives, which may be large


class Rejected(Exception):
    """A reply that cannot be used; the message says why."""


@dataclass(frozen=True)
class Reference:
    """The model that the clients started the round from: flat vector, layout, and mask if it is pruned."""

    flat: Tensor
    layout: wire.Layout
    mask: Tensor | None = None

    @staticmethod
    def of(arrays: ArrayRecord, mask: Tensor | None = None) -> "Reference":
        """Return the reference of a record."""
        layout = wire.layout_of(arrays)
        return Reference(wire.flat_of(arrays, layout), layout, mask)


def check_reply(
    message: Message,
    reference: Reference,
    max_examples: int | None = None,
    records: Sequence[str] = (),
    *,
    keep_model: bool = True,
) -> ClientUpdate:
    """Return the update that a reply carries.

    Parameters
    ----------
    max_examples
        How many examples the client described itself with, if known.
    records
        Names of further records of arrays, each with the layout of the model, that belong to it.
    keep_model
        Whether the model that the reply carries will be looked at; else a large one is changed into the
        update, where it lies.

    Raises
    ------
    Rejected
        If the reply is an error or malformed.
    """
    check_answered(message)
    content = message.content
    num_examples = example_count(content.metric_records, max_examples)
    arrays = content.array_records
    expected = {wire.ARRAYS, *records}
    if set(arrays) != expected:
        wanted = (
            f"one array record '{wire.ARRAYS}'" if not records else f"the array records {sorted(expected)}"
        )
        raise Rejected(f"wrong keys: expected {wanted}, got {sorted(arrays)}")
    delta = _delta(arrays[wire.ARRAYS], reference, keep_model)
    others = {name: _like_the_model(arrays[name], name, reference) for name in records}
    norm = _checked_norm(delta)
    if reference.mask is not None and bool(delta[~reference.mask].any()):
        raise Rejected("pruned weights were changed")
    reported = content.get(wire.METRICS)
    metrics = dict(wire.iter_numbers(reported)) if isinstance(reported, MetricRecord) else {}
    metrics.pop(wire.NUM_EXAMPLES, None)
    node_id = message.metadata.src_node_id
    return ClientUpdate(
        wire.client_id_in(content) or str(node_id), node_id, num_examples, delta, norm, metrics, others
    )


def check_answered(message: Message) -> None:
    """Check that a reply is neither an error nor a refusal; `Rejected` if it is."""
    if message.has_error():
        raise Rejected(error_line(message.error.reason))
    config = message.content.get(wire.CONFIG)
    reason = config.get(wire.REFUSED) if isinstance(config, ConfigRecord) else None
    if reason is not None:
        raise Rejected(f"refused: {first_line(str(reason))}")


def example_count(records: Mapping[str, MetricRecord], max_examples: int | None) -> int:
    """Return the number of examples that a reply names; `Rejected` if it cannot be one."""
    if len(records) != 1:
        raise Rejected(f"wrong keys: expected one metric record, got {sorted(records)}")
    value = next(iter(records.values())).get(wire.NUM_EXAMPLES)
    if not isinstance(value, int | float):
        raise Rejected(
            f"{wire.NUM_EXAMPLES} is missing" if value is None else f"{wire.NUM_EXAMPLES} is a list"
        )
    if not math.isfinite(value) or value <= 0 or value != int(value):
        raise Rejected(f"{wire.NUM_EXAMPLES} is {value}, expected a positive whole number")
    if value > wire.MAX_EXAMPLES:
        raise Rejected(f"{wire.NUM_EXAMPLES} is {value:.3g}, at most {wire.MAX_EXAMPLES} are possible")
    if max_examples is not None and value > max_examples:
        raise Rejected(
            f"{wire.NUM_EXAMPLES} is {int(value)}, at most {max_examples} by what the client described"
        )
    return int(value)


def _delta(record: ArrayRecord, reference: Reference, keep_model: bool) -> Tensor:
    try:
        flat = wire.flat_of(record, reference.layout)
    except ValueError as error:
        raise Rejected(first_line(str(error))) from None
    if not keep_model and isinstance(record, wire.FlatRecord):
        own = record.take()
        if own is not None:
            return own.sub_(reference.flat)
    return flat - reference.flat


def _like_the_model(record: ArrayRecord, name: str, reference: Reference) -> Tensor:
    """Return a record with the model's layout as a vector; `Rejected` if it has another, or is not finite."""
    try:
        flat = wire.flat_of(record, reference.layout)
    except ValueError as error:
        raise Rejected(f"'{name}': {first_line(str(error))}") from None
    try:
        _checked_norm(flat)
    except Rejected as reason:
        raise Rejected(f"'{name}': {reason}") from None
    return flat


def _checked_norm(delta: Tensor) -> float:
    norm = float(torch.linalg.vector_norm(delta)) if delta.numel() else 0.0
    if math.isnan(norm):
        raise Rejected("NaN in the parameters")
    if norm <= MAX_ABS_UPDATE:
        return norm
    largest = largest_entry(delta)
    if not math.isfinite(largest):
        raise Rejected("Inf in the parameters" if math.isinf(largest) else "NaN in the parameters")
    if largest > MAX_ABS_UPDATE:
        raise Rejected(
            f"an entry of the update is {largest:.3g}, beyond ±{MAX_ABS_UPDATE:g}: the client diverged"
        )
    return float(torch.linalg.vector_norm(delta.double()))


def first_line(text: str | None, limit: int = 200) -> str:
    r"""Return the first line of a text that says something, shortened, and without control characters.

    >>> first_line("\x1b[2Jgone")
    '?[2Jgone'
    """
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    shown = "".join(c if c.isprintable() else "?" for c in lines[0][:limit]) if lines else ""
    return shown or "no reason given"


def error_line(reason: str | None) -> str:
    """Return a client's error in one line; of a traceback of Flower's simulation, the last line."""
    _, mark, said = (reason or "").rpartition(_SIMULATION_SAYS)
    return f"error: {first_line(said.rstrip().removesuffix(_SIMULATION_ENDS) if mark else reason)}"


ReferenceOf = Callable[[Message], Reference | None]
"""From a reply to the reference of its update; raises `Rejected` if the reply does not name it."""
Reject = Callable[[Message, str], None]
"""Told of each rejected reply and the reason."""


def checked(
    replies: Iterable[Message],
    reference: Reference,
    reject: Reject,
    max_examples: Mapping[int, int] | None = None,
    reference_of: ReferenceOf | None = None,
    records: Sequence[str] = (),
    *,
    keep_models: bool = True,
) -> Iterator[CheckedReply]:
    """Yield the usable replies one at a time, in the order they come; the others go to `reject`."""
    for message in replies:
        if isinstance(message, CheckedReply):
            yield message
            del message
            continue
        try:
            limit = (max_examples or {}).get(message.metadata.src_node_id)
            own = None if reference_of is None else reference_of(message)
            update = check_reply(message, own or reference, limit, records, keep_model=keep_models)
        except Rejected as reason:
            reject(message, str(reason))
            continue
        passed = CheckedReply.of(message, update)
        del message, update
        yield passed
        del passed  # Not held while the next one arrives, which may be large


@final
class GuardedStrategy(StrategyWrapper):
    """Let only checked replies through to the wrapped strategy.

    Parameters
    ----------
    reject
        Told of each rejected reply.
    max_examples
        Node id -> number of examples that the node described itself with.
    accept
        Told the client-id of each reply that passes.
    mask
        Which parameters may change, shape [P], bool; None: all.
    reference_of
        From a reply to the reference of its update, where nodes train parts of the model; None: all train the
        whole.
    staleness_of
        From a node to how many steps its reply is behind.
    """

    def __init__(
        self,
        inner: Strategy,
        reject: Reject,
        max_examples: Mapping[int, int] | None = None,
        accept: Callable[[str], None] | None = None,
        mask: Tensor | None = None,
        reference_of: ReferenceOf | None = None,
        staleness_of: Callable[[int], int] = lambda node_id: 0,
    ) -> None:
        super().__init__(inner)
        self._staleness_of = staleness_of
        self._reference_of = reference_of
        self._accept = accept
        self._mask = mask
        self._reject = reject
        self._max_examples = max_examples
        self._reference: Reference | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the model that is sent as the reference of the updates.

        If a strategy's replies are no updates, the reference is zero: a reply is taken as it is, and only its
        layout must be that of `arrays`.
        """
        reference = Reference.of(arrays, self._mask)
        if not self.replies_are_updates:
            reference = Reference(torch.zeros_like(reference.flat), reference.layout, self._mask)
        self._reference = reference
        return self.inner.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Pass on the replies that can be used."""
        if self._reference is None:
            raise RuntimeError("aggregate_train was called before configure_train")
        good = checked(
            replies,
            self._reference,
            self._reject,
            self._max_examples,
            self._reference_of,
            self.reply_records,
            keep_models=self.reads_models,
        )
        return self.inner.aggregate_train(server_round, self._noted(good))

    def _noted(self, replies: Iterator[CheckedReply]) -> Iterator[CheckedReply]:
        answers = answers_of(self.inner)
        for reply in replies:
            if (staleness := self._staleness_of(reply.update.node_id)) > 0:
                reply = CheckedReply.of(reply, replace(reply.update, staleness=staleness))
            if reason := answers.refusal(reply.update):
                self._reject(reply, reason)
                continue
            if self._accept is not None:
                self._accept(reply.update.client_id)
            yield reply
            del reply  # Not held while the next one arrives

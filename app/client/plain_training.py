"""Plain training as a work that says itself where it trains, so that many clients go on without threads.

What a client does is what the ClientApp does with such a message, step by step: the checks before any
handler, the same job, preparation and finish of the same client half. It is for clients whose updates travel
as they are: no noise, mask, key, compression or part of a model. All others are answered by the ClientApp.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.app.message.recorddict import RecordType

from app.client import work
from app.client.admission import check
from app.client.kept_state import path_of
from app.client.node import Node
from app.client.seeded import layers_of
from app.client.words import guarded
from app.messages.content import Content
from strategies.client.pausing import Pausing
from strategies.client.stacked import Failed, Trained, put_into
from strategies.client.stacked_data import Request
from strategies.client.training import (
    ClientJob,
    LocalResult,
    LocalTraining,
    StepState,
    TrainStats,
    trained,
)
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.seeds import GlobalState
from strategies.models import travelling
from strategies.registry import lookup

_PARTS = (wire.POSITIONS, wire.MASK, wire.KEEP)
"""Entries of a message by which a part of the model is trained."""


def job_of(
    node: Node, arrays: ArrayRecord, message: Message, context: Context, *, to_read: bool = False
) -> ClientJob:
    """Return all that a client half is given for a message that brings a model.

    With `to_read`, the half does not train it (see `SharedModel.hold`).
    """
    node.check_scale()
    return ClientJob(
        node.model(arrays, to_read=to_read),
        node.training_examples(),
        node.config.train,
        node.config.strategy,
        node.client_id,
        node.server_round,
        node.generator(),
        keep=float(str(node.message_config.get(wire.KEEP, 0.0))),
        state=context.state,
        received=message.content,
        lineage=str(node.message_config.get(wire.LINEAGE, "")),
        examples_of=partial(work.of_client, node),
        task=node.task,
        rounds=node.rounds,
    )


def answered(client_id: str, result: LocalResult, arrays: ArrayRecord) -> RecordDict:
    """Return the content of the answer to a training whose update travels as it is."""
    chosen = {wire.POSITIONS: result.positions} if result.positions else {}
    metrics = {**result.metrics, wire.NUM_EXAMPLES: result.num_examples}
    return Content({wire.ARRAYS: arrays, **wire.told(client_id, metrics, chosen), **further_records(result)})


def further_records(result: LocalResult) -> dict[str, RecordType]:
    """Return the records of an answer that the algorithm sends beside the model."""
    if not result.records:
        return {}
    layout = travelling.layout_of(result.model)
    return {name: wire.FlatRecord(flat, layout) for name, flat in result.records.items()}


def pausing_training(message: Message, context: Context) -> Pausing[RecordDict] | None:
    """Return a work that answers a message to train; None if only a call of the ClientApp answers it."""
    if message.metadata.message_type != wire.TRAIN:
        return None
    try:
        node = Node.agreed(message, context)
        if path_of(message, context) is not None or not _is_plain(node, message):
            return None
    except LetheError:  # The ClientApp finds it, too, and says it
        return None
    half = lookup(node.config.strategy.name).client
    return _Plain(node, half, message, context).answer() if isinstance(half, LocalTraining) else None


def _is_plain(node: Node, message: Message) -> bool:
    privacy = node.config.privacy
    if node.is_secure or privacy.on or privacy.encryption != "none" or wire.LINK in node.message_config:
        return False
    if node.config.run.precision != "float32":  # The ClientApp sets it around each client
        return False
    record = message.content.get(wire.ARRAYS)
    if not isinstance(record, wire.FlatRecord) or any(key in node.message_config for key in _PARTS):
        return False
    return node.shared.travels_as_trained and record.layout == node.shared.layout


@final
class _OwnLayers:
    """What torch's global generators draw while a client's message is handled, found when it is needed."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._state: GlobalState | None = None

    def now(self) -> GlobalState:
        """Return what they draw next."""
        if self._state is None:
            with layers_of(self._node, wire.TRAIN):
                self._state = GlobalState.now()
        return self._state

    def go_on_from(self, state: GlobalState | None) -> None:
        """Note what was drawn elsewhere; None: nothing."""
        self._state = state or self._state

    @contextmanager
    def drawn_from(self) -> Iterator[None]:
        """Have what is done draw from them."""
        outer = GlobalState.now()
        self.now().put_back()
        try:
            yield
        finally:
            self._state = GlobalState.now()
            outer.put_back()

    def for_own_code(self) -> AbstractContextManager[None]:
        """As `drawn_from` where a user's project may draw, which nothing of this package does."""
        return nullcontext() if self._node.work.loaded is None else self.drawn_from()


@final
@dataclass(frozen=True, eq=False)
class _Plain:
    """A message to train, and the client that it is for."""

    node: Node
    half: LocalTraining
    message: Message
    context: Context

    def answer(self) -> Pausing[RecordDict]:
        """Answer, stopping where the client trains."""
        node, layers = self.node, _OwnLayers(self.node)
        with guarded(node):
            check(node, self.message)
            node.keep_tags(self.context.state)
            with layers.for_own_code():
                job = job_of(node, self._arrays, self.message, self.context, to_read=True)
                if not len(job.examples):
                    return Content(wire.told(node.client_id, {}, {wire.REFUSED: wire.NOTHING_LEFT}))
                state = self.half.prepare(job)
            training = self.half.training(job, state)
            if training is None:
                return self._result(job, state, TrainStats(0, 0.0))
            start = wire.flat_of(self._arrays, node.shared.layout)
            outcome = yield Request(training, layers.now, start)
            if isinstance(outcome, Failed):
                raise outcome.error
            if isinstance(outcome, Trained):
                layers.go_on_from(outcome.layers)
                with layers.for_own_code():
                    return self._of(job, state, outcome)
            with layers.drawn_from():
                node.model(self._arrays)
                return self._result(job, state, training.run())

    @property
    def _arrays(self) -> ArrayRecord:
        return self.message.content[wire.ARRAYS]  # type: ignore[return-value]

    def _of(self, job: ClientJob, state: StepState, outcome: Trained) -> RecordDict:
        """Return the answer of a client that was trained beside others."""
        if self.half.finish is not None:
            self.node.shared.release()
            put_into(job.model, outcome)
            return self._result(job, state, outcome.stats)
        flat = outcome.parameters.to("cpu", torch.float32)
        record = wire.FlatRecord(flat, self.node.shared.layout)
        return answered(self.node.client_id, trained(job, outcome.stats), record)

    def _result(self, job: ClientJob, state: StepState, stats: TrainStats) -> RecordDict:
        """Return the answer of a client whose model is trained."""
        result = self.half.result(job, state, stats)
        return answered(self.node.client_id, result, self.node.record_of(result.model))

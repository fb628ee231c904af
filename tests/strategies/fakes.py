"""A grid without processes: each node answers with a function, now, late, out of order or never."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from torch import Tensor

from strategies.core import wire
from strategies.core.seeds import numpy_generator
from strategies.server.grids import BaseGrid

Answer = Callable[[Message], Message | None]
"""Answers one message; None: never."""


def flat_record(values: Sequence[float]) -> ArrayRecord:
    """Return a record of one entry ``w``."""
    return wire.record_of({"w": torch.tensor(values)})


def node_answer(client_id: str, num_examples: int, train: Callable[[Tensor, Message], Tensor]) -> Answer:
    """Return a well-behaved client: describes itself, trains ``w``, evaluates to an accuracy of 50."""

    def answer(message: Message) -> Message:
        kind = message.metadata.message_type
        if kind == wire.DESCRIBE:
            metrics = {wire.NUM_EXAMPLES: num_examples, wire.LABEL_COUNTS: [num_examples, 0]}
            return wire.reply_to(message, client_id, metrics)
        if kind == wire.EVALUATE:
            return wire.reply_to(message, client_id, {wire.NUM_EXAMPLES: num_examples, wire.ACCURACY: 50.0})
        old = wire.state_of(message.content.array_records[wire.ARRAYS])["w"]
        metrics = {wire.NUM_EXAMPLES: num_examples, wire.TRAIN_LOSS: float(num_examples)}
        return wire.reply_to(message, client_id, metrics, wire.record_of({"w": train(old, message)}))

    return answer


def adds(value: float) -> Callable[[Tensor, Message], Tensor]:
    """Return a training that adds a constant."""
    return lambda old, message: old + value


def raises(message: Message) -> Message:
    """Answer with an error, as Flower does when a ClientApp raises."""
    return Message(Error(1, "ValueError: no data\nTraceback …"), reply_to=message)


def spoiled(answer: Answer, spoil: Callable[[RecordDict], None], kind: str = wire.TRAIN) -> Answer:
    """Return a client whose answers of one kind are changed."""

    def changed(message: Message) -> Message | None:
        reply = answer(message)
        if reply is not None and message.metadata.message_type == kind:
            spoil(reply.content)
        return reply

    return changed


@dataclass
class FakeGrid(BaseGrid):
    """Flower's grid over functions.

    Parameters
    ----------
    answers
        Node id -> its client.
    shuffle
        Seed of the order in which replies arrive; None: the order of the messages.
    """

    answers: dict[int, Answer]
    shuffle: int | None = None
    sent: list[Message] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    looks: int = 0
    _replies: dict[str, Message] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        """Take the identity that messages need."""
        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes."""
        return list(self.answers)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answer each message at once; the node of a message that is not accepted is gone."""
        ids: list[str] = []
        for message in messages:
            self._count += 1
            self.sent.append(message)
            if message.metadata.dst_node_id not in self.answers:
                ids.append(None)  # type: ignore[arg-type] # as Flower does
                continue
            message.metadata.__dict__["_message_id"] = str(self._count)
            ids.append(str(self._count))
            reply = self.answers[message.metadata.dst_node_id](message)
            if reply is not None:
                reply.metadata.__dict__["_reply_to_message_id"] = str(self._count)
                self._replies[str(self._count)] = reply
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return one reply at a time."""
        self.looks += 1
        ready = [i for i in message_ids if i in self._replies]
        if self.shuffle is not None:
            ready = [ready[i] for i in numpy_generator(self.shuffle, "arrival").permutation(len(ready))]
        return [self._replies.pop(i) for i in ready[:1]]

    def cancel(self, message_ids: Iterable[str]) -> None:
        """Note what is given up."""
        self.cancelled += message_ids


def two_clients(**more: Answer) -> dict[int, Answer]:
    """Return clients a (node 1, 1 example, adds 2) and b (node 2, 3 examples, adds 4), and more."""
    nodes = {1: node_answer("a", 1, adds(2.0)), 2: node_answer("b", 3, adds(4.0))}
    return nodes | dict(enumerate(more.values(), start=3))


def metrics_of(**values: float) -> MetricRecord:
    """Return a metric record with hyphens in its keys."""
    return MetricRecord({key.replace("_", "-"): value for key, value in values.items()})


def config_of(**values: str) -> ConfigRecord:
    """Return a config record with hyphens in its keys."""
    return ConfigRecord({key.replace("_", "-"): value for key, value in values.items()})

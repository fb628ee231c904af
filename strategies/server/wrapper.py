"""Base of the strategies that wrap another one: everything passes through unless a wrapper says otherwise."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.core import wire

if TYPE_CHECKING:
    from strategies.server.guard import ClientUpdate


@dataclass(frozen=True)
class ReturnResult:
    """The result of a round's second exchange.

    Parameters
    ----------
    clients
        What each client reported, by client-id.
    rejected
        Why a client's report is not among these, by client-id.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    clients: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rejected: Mapping[str, str] = field(default_factory=dict)


class Answers:
    """What wrappers ask a server half, with default answers."""

    @property
    def is_weighted_average(self) -> bool:
        """Whether a round adds exactly Σ n_i δ_i / Σ n_i to the model."""
        return False

    @property
    def replies_are_updates(self) -> bool:
        """Whether replies carry the model that was sent, changed; else they stand for themselves."""
        return True

    @property
    def reads_models(self) -> bool:
        """Whether it looks at the models that replies carry, and not at the updates made of them alone."""
        return True

    @property
    def reply_records(self) -> tuple[str, ...]:
        """Names of further records of arrays that each reply must carry, with the layout of the model."""
        return ()

    @property
    def weight_divisor(self) -> float | None:
        """What the weights of the last round were divided by; None: by their sum."""
        return None

    def share_of(self, client_id: str) -> int:
        """Return which clients' weights a client's is divided with; here they are divided all together."""
        return 0

    def divisor_of(self, share: int) -> float | None:
        """Return `weight_divisor` of the clients of one share (see `share_of`)."""
        return self.weight_divisor

    @property
    def entry_counts(self) -> Tensor | None:
        """How many clients were asked for each entry, shape [P]; None where nothing is divided by that."""
        return None

    def aggregation_weight(self, update: "ClientUpdate") -> float:
        """Return what an update weighs, before division."""
        return update.num_examples

    def refusal(self, update: "ClientUpdate") -> str:
        """Return why a well-formed update cannot be used; empty if it can."""
        return ""

    def configure_return(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the messages of a round's second exchange; `arrays` is what the round gave."""
        return []

    def aggregate_return(self, server_round: int, replies: Iterable[Message]) -> ReturnResult:
        """Return what comes of the replies to the second exchange."""
        return ReturnResult()


class ServerHalf(Answers, Strategy):
    """A server half of this project's own."""

    @property
    def reads_models(self) -> bool:
        """Whether it looks at the models that replies carry: it has the updates."""
        return False


def answers_of(strategy: Strategy) -> Answers:
    """Return a strategy's answers to its wrappers; Flower's strategies have the defaults."""
    return strategy if isinstance(strategy, Answers) else Answers()


class StrategyWrapper(ServerHalf):
    """Delegate every hook and every answer to the wrapped strategy."""

    def __init__(self, inner: Strategy) -> None:
        self.inner = inner

    @property
    def is_weighted_average(self) -> bool:
        """The wrapped strategy's answer."""
        return answers_of(self.inner).is_weighted_average

    @property
    def replies_are_updates(self) -> bool:
        """The wrapped strategy's answer."""
        return answers_of(self.inner).replies_are_updates

    @property
    def reads_models(self) -> bool:
        """The wrapped strategy's answer."""
        return answers_of(self.inner).reads_models

    @property
    def reply_records(self) -> tuple[str, ...]:
        """The wrapped strategy's answer."""
        return answers_of(self.inner).reply_records

    @property
    def weight_divisor(self) -> float | None:
        """The wrapped strategy's answer."""
        return answers_of(self.inner).weight_divisor

    def share_of(self, client_id: str) -> int:
        """Return the wrapped strategy's answer."""
        return answers_of(self.inner).share_of(client_id)

    def divisor_of(self, share: int) -> float | None:
        """Return the wrapped strategy's answer."""
        return answers_of(self.inner).divisor_of(share)

    @property
    def entry_counts(self) -> Tensor | None:
        """The wrapped strategy's answer."""
        return answers_of(self.inner).entry_counts

    def aggregation_weight(self, update: "ClientUpdate") -> float:
        """Return the wrapped strategy's answer."""
        return answers_of(self.inner).aggregation_weight(update)

    def refusal(self, update: "ClientUpdate") -> str:
        """Return the wrapped strategy's answer."""
        return answers_of(self.inner).refusal(update)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the wrapped strategy's messages."""
        return self.inner.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the wrapped strategy's result."""
        return self.inner.aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the wrapped strategy's messages."""
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return the wrapped strategy's result."""
        return self.inner.aggregate_evaluate(server_round, replies)

    def configure_return(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the wrapped strategy's messages."""
        return answers_of(self.inner).configure_return(server_round, arrays, config, grid)

    def aggregate_return(self, server_round: int, replies: Iterable[Message]) -> ReturnResult:
        """Return the wrapped strategy's result."""
        return answers_of(self.inner).aggregate_return(server_round, replies)

    def summary(self) -> None:
        """Log the wrapped strategy's settings."""
        self.inner.summary()


Entries = Callable[[int, int], Mapping[str, wire.ConfigValue]]
"""From a round and a node id to what the messages of the round say to the node besides."""


@final
class AddedEntries(StrategyWrapper):
    """Add entries to the record ``config`` of every message of a round; see `Entries`."""

    def __init__(self, inner: Strategy, entries: Entries) -> None:
        super().__init__(inner)
        self._entries = entries

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the wrapped strategy's messages with the entries."""
        return self._with_entries(server_round, super().configure_train(server_round, arrays, config, grid))

    def configure_return(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the wrapped strategy's messages with the entries."""
        return self._with_entries(server_round, super().configure_return(server_round, arrays, config, grid))

    def _with_entries(self, server_round: int, messages: Iterable[Message]) -> Iterable[Message]:
        shared = wire.SharedEntries()
        for message in messages:
            shared.add(message, self._entries(server_round, message.metadata.dst_node_id))
            yield message


@final
class AddedRecords(StrategyWrapper):
    """Add records of arrays with the model's layout, such as another model, to every message of a round."""

    def __init__(self, inner: Strategy, records: Mapping[str, ArrayRecord]) -> None:
        super().__init__(inner)
        self._records = records

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the wrapped strategy's messages with the records; content that they share is not changed."""
        for message in super().configure_train(server_round, arrays, config, grid):
            message.content = RecordDict({**message.content, **self._records})
            yield message


def innermost(strategy: Strategy) -> Strategy:
    """Return the strategy inside all wrappers."""
    while isinstance(strategy, StrategyWrapper):
        strategy = strategy.inner
    return strategy

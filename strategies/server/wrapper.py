"""Base of the strategies that wrap another one: everything passes through unless a wrapper says otherwise."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy


@dataclass(frozen=True)
class ReturnResult:
    """What came of the second exchange of a round.

    Parameters
    ----------
    metrics
        Figures of the round, by name.
    clients
        What each client reported, by client-id.
    rejected
        Why a client's report is not among these, by client-id.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    clients: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rejected: Mapping[str, str] = field(default_factory=dict)


class StrategyWrapper(Strategy):
    """Delegate every hook to the wrapped strategy.

    Parameters
    ----------
    inner
        Any Flower strategy, itself a wrapper or not.
    """

    def __init__(self, inner: Strategy) -> None:
        self.inner = inner

    @property
    def is_weighted_average(self) -> bool:
        """Whether a round adds exactly the weighted mean of the updates to the model."""
        return is_weighted_average(self.inner)

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
        """Return the messages of the round's second exchange; none where the wrapped strategy has no such.

        A strategy that has one brings this method and `aggregate_return`; `arrays` is what the round gave.
        """
        configure = getattr(self.inner, "configure_return", None)
        messages: Iterable[Message] = (
            [] if configure is None else configure(server_round, arrays, config, grid)
        )
        return messages

    def aggregate_return(self, server_round: int, replies: Iterable[Message]) -> ReturnResult:
        """Return what the wrapped strategy makes of the replies to the second exchange."""
        aggregate = getattr(self.inner, "aggregate_return", None)
        result: ReturnResult = ReturnResult() if aggregate is None else aggregate(server_round, replies)
        return result

    def summary(self) -> None:
        """Log the wrapped strategy's settings."""
        self.inner.summary()


def is_weighted_average(strategy: Strategy) -> bool:
    """Say whether a round adds exactly Σ n_i δ_i / Σ n_i; False where the strategy does not say."""
    return bool(getattr(strategy, "is_weighted_average", False))


def replies_are_updates(strategy: Strategy) -> bool:
    """Say whether replies carry the model that was sent, changed; False where they stand for themselves."""
    return bool(getattr(innermost(strategy), "replies_are_updates", True))


def innermost(strategy: Strategy) -> Strategy:
    """Return the strategy inside all wrappers."""
    while isinstance(strategy, StrategyWrapper):
        strategy = strategy.inner
    return strategy

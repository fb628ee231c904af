"""Base of the strategies that wrap another one: everything passes through unless a wrapper says otherwise."""

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy


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

    def summary(self) -> None:
        """Log the wrapped strategy's settings."""
        self.inner.summary()


def is_weighted_average(strategy: Strategy) -> bool:
    """Say whether a round adds exactly Σ n_i δ_i / Σ n_i; False where the strategy does not say."""
    return bool(getattr(strategy, "is_weighted_average", False))


def innermost(strategy: Strategy) -> Strategy:
    """Return the strategy inside all wrappers."""
    while isinstance(strategy, StrategyWrapper):
        strategy = strategy.inner
    return strategy

"""A strategy that logs: every update that reaches the wrapped strategy is noted on its way."""

from collections.abc import Iterable, Iterator, Mapping
from typing import final

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from strategies.log.update_log import UpdateLog
from strategies.server.guard import all_checked
from strategies.server.wrapper import StrategyWrapper


@final
class LoggedStrategy(StrategyWrapper):
    """Log each update that the wrapped strategy aggregates, one at a time, as it passes.

    It belongs inside the guard, whose checked replies carry the updates, and outside whatever changes the
    model. A round counts once the wrapped strategy has returned a model; otherwise nothing of it is kept.

    Parameters
    ----------
    inner
        Any Flower strategy. Where it says that it is a weighted average (see `strategies.server.wrapper`),
        the rounds are marked as such: subtraction needs that.
    log
        Open for writing; closing it is the caller's.
        Updates weigh, and their weights are divided by, what the strategy answers.
    num_examples
        Node id -> number of examples that the node described itself with; saves time under retention `sum`
        (see `UpdateLog.begin_round`).
    """

    def __init__(
        self, inner: Strategy, log: UpdateLog, num_examples: Mapping[int, int] | None = None
    ) -> None:
        super().__init__(inner)
        self._log = log
        self._num_examples = num_examples or {}
        self._expected_weight: float | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Note how many examples the round will cover, if all who are asked answer."""
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        described = [self._num_examples.get(message.metadata.dst_node_id) for message in messages]
        known = [examples for examples in described if examples is not None]
        self._expected_weight = sum(known) if known and len(known) == len(described) else None
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the wrapped strategy's result, after the round was committed.

        Raises
        ------
        LetheError
            If the log could not be written; the round is not in it then.
        """
        self._log.begin_round(server_round, self._expected_weight, self.share_of)
        try:
            arrays, metrics = self.inner.aggregate_train(server_round, self._logged(server_round, replies))
            if arrays is not None:
                self._log.commit_round(server_round, self.is_weighted_average, self.divisor_of)
        finally:
            self._log.abandon()  # Nothing is left to abandon after a commit
        return arrays, metrics

    def _logged(self, server_round: int, replies: Iterable[Message]) -> Iterator[Message]:
        for reply in all_checked(replies, "LoggedStrategy"):
            update = reply.update
            examples = update.num_examples
            weight = float(self.aggregation_weight(update))
            self._log.add(server_round, update.client_id, weight, examples, update.delta, update.norm)
            del update
            yield reply
            del reply  # Not held while the next one arrives
            self._log.written(server_round)

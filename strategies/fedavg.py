"""Federated averaging.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017, Algorithm 1:

    w_{t+1} = w_t + Σ_k (n_k / n) (w_{t+1}^k − w_t),   n = Σ_k n_k over the clients that answered in round t

Differs from the paper: the average runs over the clients that took part in the round, and a round without a
usable reply leaves the model as it is. Replies are consumed one by one, so the server holds one sum whatever
the number of clients; the sum is exact, so their order does not change a bit.
"""

import logging
from abc import ABC
from collections.abc import Iterable
from typing import final

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from strategies.algorithm import Algorithm
from strategies.client.training import LocalTraining
from strategies.core import wire
from strategies.server.aggregation import FRACTION_BITS, ExactSum, MetricMeans
from strategies.server.guard import Reference, checked
from strategies.server.wrapper import ServerHalf

_logger = logging.getLogger(__name__)


train_client = LocalTraining()
"""The client half: plain local training."""


class EvaluatingStrategy(ServerHalf, ABC):
    """A strategy whose clients evaluate what they are sent; their metrics are averaged over examples."""

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the model to every node of the grid."""
        return broadcast(server_round, arrays, config, grid, MessageType.EVALUATE)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return the metrics averaged over examples, or None when nobody answered."""
        return average_metrics(replies)


@final
class FedAvg(EvaluatingStrategy):
    """The server half, a Flower strategy that streams.

    Whom it asks is decided by the grid it is given: every node that the grid lists.

    Parameters
    ----------
    fraction_bits
        b of the fixed point 2^-b in which updates are added up (see `ExactSum`).
    message_type
        What the clients are asked to do; any client half that answers with a model can be averaged.
    """

    is_weighted_average = True

    def __init__(self, fraction_bits: int = FRACTION_BITS, message_type: str = MessageType.TRAIN) -> None:
        self._fraction_bits = fraction_bits
        self._message_type = message_type
        self._reference: Reference | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the model to every node of the grid."""
        self._reference = Reference.of(arrays)
        return broadcast(server_round, arrays, config, grid, self._message_type)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the average of the usable replies, or (None, None) when there is none."""
        if self._reference is None:
            raise RuntimeError("aggregate_train was called before configure_train")
        total, metrics = summed(replies, self._reference, self._fraction_bits)
        if total.count == 0:
            return None, None
        flat = total.added_to(self._reference.flat)
        return wire.FlatRecord(flat, self._reference.layout), MetricRecord(dict(metrics.means()))

    def summary(self) -> None:
        """Log what the strategy does."""
        _logger.info("FedAvg: streaming weighted average")


def summed(
    replies: Iterable[Message], reference: Reference, fraction_bits: int = FRACTION_BITS
) -> tuple[ExactSum, MetricMeans]:
    """Return the sum of the usable replies' updates, weighted by examples, and the means of their metrics."""
    total, metrics = ExactSum(reference.layout.size, fraction_bits), MetricMeans()
    for reply in checked(replies, reference, log_rejected):
        reply.update.add_to(total)
        metrics.add(reply.update.metrics, reply.update.num_examples)
        del reply  # Not held while the next one arrives
    return total, metrics


def broadcast(
    server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid, message_type: str
) -> list[Message]:
    """Return one message per node of the grid, all carrying the same records."""
    settings = ConfigRecord({**config, wire.SERVER_ROUND: server_round})
    content = RecordDict({wire.ARRAYS: arrays, wire.CONFIG: settings})
    nodes = list(grid.get_node_ids())
    first = [Message(content, node_id, message_type, group_id=str(server_round)) for node_id in nodes[:1]]
    return first + [wire.twin(first[0], content, dst_node_id=node_id) for node_id in nodes[1:]]


def average_metrics(replies: Iterable[Message]) -> MetricRecord | None:
    """Return the mean of each scalar metric weighted by `num-examples`; None when no reply has both."""
    means = MetricMeans()
    for reply in replies:
        if reply.has_error():
            continue
        metrics = dict(wire.iter_numbers(reply.content.metric_records.get(wire.METRICS, {})))
        weight = metrics.pop(wire.NUM_EXAMPLES, 0.0)
        if weight > 0:
            means.add(metrics, weight)
    averaged = means.means()
    return MetricRecord(dict(averaged)) if averaged else None


def log_rejected(message: Message, reason: str) -> None:
    """Log that a reply is not used."""
    _logger.warning("reply of node %d rejected: %s", message.metadata.src_node_id, reason)


ALGORITHM = Algorithm("weighted average of the clients' models", train_client, lambda side: FedAvg())

"""The server step that `fedasync` and `fedbuff` share: a weighted mean in which late updates count less.

    x ← x + η Σ_k (n_k / n) s(t − τ_k) δ_k,    n = Σ_k n_k over the K updates of the step

With s ≡ 1 and η = 1 it is the step of `strategies.fedavg`, to the bit.
"""

import logging
import math
from collections.abc import Callable, Iterable
from typing import final

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from strategies.core import wire
from strategies.fedavg import EvaluatingStrategy, broadcast, log_rejected
from strategies.server.aggregation import ExactSum, MetricMeans
from strategies.server.guard import ClientUpdate, Reference, checked

_logger = logging.getLogger(__name__)


@final
class StaleAverage(EvaluatingStrategy):
    """The server half of `fedasync` and `fedbuff`; it adds up replies one by one.

    The guard says of each update how many steps it is behind; the mean of that is the metric ``staleness``.

    Parameters
    ----------
    discount
        s: from a staleness to a factor in (0, 1].
    rate
        η, above 0.

    Attributes
    ----------
    weight_divisor : float or None
        What the weights n_k s(t − τ_k) were divided by in the last step, n / η; None before the first.
    """

    is_weighted_average = True
    weight_divisor: float | None = None

    def __init__(self, discount: Callable[[int], float], rate: float) -> None:
        self._discount = discount
        self._rate = rate
        self._reference: Reference | None = None
        self.weight_divisor = None

    def aggregation_weight(self, update: ClientUpdate) -> float:
        """Return n_k s(t − τ_k)."""
        return update.num_examples * self._discount(update.staleness)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the model to every node of the grid."""
        self._reference = Reference.of(arrays)
        return broadcast(server_round, arrays, config, grid, wire.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the model after the step, or (None, None) where no reply can be used."""
        if self._reference is None:
            raise RuntimeError("aggregate_train was called before configure_train")
        total = ExactSum(self._reference.layout.size)
        metrics, examples = MetricMeans(), list[int]()
        for reply in checked(replies, self._reference, log_rejected):
            update = reply.update
            total.add(update.delta, self.aggregation_weight(update))
            examples.append(update.num_examples)
            metrics.add({**update.metrics, wire.STALENESS: float(update.staleness)}, update.num_examples)
        if not examples:
            return None, None
        self.weight_divisor = math.fsum(examples) / self._rate
        flat = total.added_to(self._reference.flat, self.weight_divisor)
        return wire.FlatRecord(flat, self._reference.layout), MetricRecord(dict(metrics.means()))

    def summary(self) -> None:
        """Log what the strategy does."""
        _logger.info("streaming average with less weight for late updates, rate %g", self._rate)

"""FedDyn: a regulariser that changes with each round lets clients with different data agree.

Acar, Zhao, Navarro, Mattina, Whatmough, Saligrama, "Federated Learning Based on Dynamic Regularization", ICLR
2021, arXiv 2111.04263, Algorithm 1. Client k approximately minimises

    L_k(θ) − ⟨g_k, θ⟩ + (α/2) ‖θ − θ_{t−1}‖²,    then    g_k ← g_k − α (θ_k − θ_{t−1})

The server, with m clients of which those in P answered,

    h ← h − α (1/m) Σ_{k∈P} (θ_k − θ_{t−1}),    θ_t = (1/|P|) Σ_{k∈P} θ_k − h / α

Clients count alike, whatever the number of their examples. Differs from the paper: m is the number of clients
that were asked so far, and a client takes up its new g_k when the server says that it used it. The model does
not move by the mean of the updates alone, so that methods which sum the log do not serve; every retraining
begins with h and g_k of zero.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import final

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from torch import Tensor

from strategies import fedavg
from strategies.algorithm import Algorithm
from strategies.client.proposed import Confirmed, Proposed
from strategies.client.training import (
    ClientJob,
    LocalResult,
    LocalTraining,
    StepState,
    TrainStats,
    by_parameter,
    near,
    trained,
)
from strategies.core import wire
from strategies.feddyn.settings import FedDynSettings
from strategies.models import travelling
from strategies.server.aggregation import ExactSum, MetricMeans
from strategies.server.guard import ClientUpdate, all_checked

_logger = logging.getLogger(__name__)
_STATE = "feddyn"


def _kept(job: ClientJob, size: int) -> Proposed:
    config = job.received.config_records.get(wire.CONFIG, ConfigRecord())
    return Proposed(job.state, config, size, _STATE)


def prepare(job: ClientJob) -> StepState:
    """Return the dynamic regulariser: the proximal term, and −g_k."""
    layout = travelling.layout_of(job.model)
    correction = by_parameter(job.model, -_kept(job, layout.size).value, layout)
    pulled = near(job.model, job.strategy.own(FedDynSettings).dyn_alpha)
    return replace(pulled, correction=correction, before=layout.flatten(job.model.state_dict()))


def finish(job: ClientJob, state: StepState, stats: TrainStats) -> LocalResult:
    """Return the trained model; g_k is kept until the server used the answer."""
    layout = travelling.layout_of(job.model)
    kept = _kept(job, layout.size)
    change = layout.flatten(job.model.state_dict()) - state.before
    kept.propose(kept.value - state.mu * change, job.server_round)
    return trained(job, stats)


train_client = LocalTraining(prepare, finish)
"""The client half: local steps under the dynamic regulariser."""


@final
class FedDyn(fedavg.EvaluatingStrategy):
    """The server half."""

    memory_name = "feddyn"

    def __init__(self, settings: FedDynSettings) -> None:
        self._alpha = settings.dyn_alpha
        self._confirmed = Confirmed()
        self._asked: set[int] = set()
        self._h = torch.zeros(0)
        self._flat, self._layout = torch.zeros(0), wire.Layout((), ())

    def aggregation_weight(self, update: ClientUpdate) -> float:
        """Return 1: clients count alike."""
        return 1.0

    def memory(self) -> dict[str, Tensor]:
        """Return h, who was asked, and which answers were used."""
        asked = torch.tensor(sorted(self._asked), dtype=torch.int64)
        return {"h": self._h, "asked": asked, **self._confirmed.memory()}

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `memory` returned."""
        self._h, self._asked = tensors["h"].clone(), set(tensors["asked"].tolist())
        self._confirmed.recall(tensors)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the model to every node of the grid, with the last round whose answer was used."""
        self._layout = wire.layout_of(arrays)
        self._flat = wire.flat_of(arrays, self._layout)
        if len(self._h) != self._layout.size:
            self._h = torch.zeros(self._layout.size)
        messages = fedavg.broadcast(server_round, arrays, config, grid, wire.TRAIN)
        for message in messages:
            self._asked.add(message.metadata.dst_node_id)
            self._confirmed.tell(message, str(message.metadata.dst_node_id))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return θ_t, or (None, None) when there is no usable reply."""
        total, metrics, used = ExactSum(self._layout.size), MetricMeans(), list[str]()
        for reply in all_checked(replies, "FedDyn"):
            total.add(reply.update.delta, 1.0)
            metrics.add(reply.update.metrics, reply.update.num_examples)
            used.append(str(reply.update.node_id))
        if not used:
            return None, None
        share = total.added_to(torch.zeros_like(self._h), len(self._asked))
        self._h = self._h - self._alpha * share
        self._confirmed.note(used, server_round)
        flat = total.added_to(self._flat) - self._h / self._alpha
        return wire.FlatRecord(flat, self._layout), MetricRecord(dict(metrics.means()))

    def summary(self) -> None:
        """Log what the strategy does."""
        _logger.info("FedDyn: alpha %g", self._alpha)


ALGORITHM = Algorithm(
    "a regulariser that changes with each round lets clients with different data agree",
    train_client,
    lambda side: FedDyn(side.settings.own(FedDynSettings)),
)

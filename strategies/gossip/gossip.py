"""Decentralised parallel SGD: no global model; every client mixes its own with those of its neighbours.

Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms? A Case Study for Decentralized
Parallel Stochastic Gradient Descent", NeurIPS 2017, arXiv 1705.09056, Algorithm 1:

    x_i ← Σ_j W_ij x_j − η ∇f_i(x_i)

with a symmetric, doubly stochastic W (see `strategies.gossip.topology`). Differs from the paper: in place of
one stochastic gradient, a client takes the local steps of the run config from x_i (``train.local-steps = 1``
with ``train.momentum = 0`` is the paper's), and adds the change to the mixture. On the complete graph with
equally many examples everywhere, a round is FedAvg's, except that each client keeps the change of its own
last steps to itself until the next round.

Where models lie: the server relays. It keeps the last model of every client, sends each client its own and
its neighbours', and takes the new one; it mixes nothing. So clients need no state, one that fails keeps its
model and its neighbours go on with that, and a run is resumed from the server's checkpoint, which holds
all of the models. What the training loop calls the model is their plain mean, which no client trains on.

The consensus distance of a round is √(Σ_i ‖x_i − x̄‖² / n). Without local steps it falls, per round, at least
by the second largest modulus of the eigenvalues of W.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import final

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from strategies import fedavg
from strategies.algorithm import Algorithm
from strategies.client.training import ClientJob, LocalResult
from strategies.core import wire
from strategies.fedavg import EvaluatingStrategy
from strategies.gossip.settings import GossipSettings
from strategies.gossip.topology import Weights, adjacency, mixing_weights, second_eigenvalue
from strategies.models import travelling
from strategies.server.aggregation import MetricMeans
from strategies.server.grids import client_ids_of
from strategies.server.guard import ClientUpdate, all_checked
from strategies.settings import StrategySettings

_logger = logging.getLogger(__name__)

WEIGHTS = "mixing-weights"
"""list[float], server to client: the weight of the client's own model, then those of its neighbours'."""
NEIGHBOUR = "neighbour-"
"""Records of arrays, server to client: the models of the neighbours, numbered from 1."""
DISTANCE = "consensus-distance"
"""√(Σ_i ‖x_i − x̄‖² / n) after the round."""
EIGENVALUE = "second-eigenvalue"
"""Second largest modulus of the eigenvalues of W."""


def mixed(models: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return Σ_j weight_j · model_j, added in float64 in the order given, shape [P], float32."""
    total = torch.zeros_like(models[0], dtype=torch.float64)
    for model, weight in zip(models, weights, strict=True):
        total += model.double() * weight
    return total.float()


def consensus_distance(models: Sequence[Tensor]) -> float:
    """Return the root mean square distance of the models from their mean.

    Examples
    --------
    >>> consensus_distance([torch.tensor([1.0]), torch.tensor([3.0])])
    1.0
    """
    stacked = torch.stack(list(models)).double()  # [n, P]
    return float((stacked - stacked.mean(dim=0)).norm()) / math.sqrt(len(stacked))


def train_client(job: ClientJob) -> LocalResult:
    """Run the client half: local steps from the client's own model, and the mixture of the neighbours'."""
    config, records = job.received.config_records[wire.CONFIG], job.received.array_records
    weights = [float(str(weight)) for weight in list(config[WEIGHTS])]  # type: ignore[arg-type]
    layout = travelling.layout_of(job.model)
    names = [wire.ARRAYS, *(f"{NEIGHBOUR}{place}" for place in range(1, len(weights)))]
    models = [wire.flat_of(records[name], layout) for name in names]
    result = fedavg.train_client(job)
    change = layout.flatten(result.model.state_dict()) - models[0]
    wire.load_flat(result.model, mixed(models, weights) + change, layout)
    return result


@final
class Gossip(EvaluatingStrategy):
    """The server half: a relay.

    Parameters
    ----------
    seed
        Decides a random topology.

    Attributes
    ----------
    models : dict of str to array
        The last model of every client, flat, by client-id; part of a checkpoint.
    """

    is_weighted_average = False
    replies_are_updates = False

    def __init__(self, settings: StrategySettings, seed: int) -> None:
        self.models: dict[str, np.ndarray] = {}
        self._settings = settings.own(GossipSettings)
        self._seed = seed
        self._layout = wire.Layout((), ())
        self._clients: list[str] = []
        self._eigenvalue = 0.0

    def aggregation_weight(self, update: ClientUpdate) -> float:
        """Return what a client's model counts in the mean, before division."""
        return 1.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send every node of the grid its own model and those of its neighbours."""
        self._layout = wire.layout_of(arrays)
        nodes = client_ids_of(grid)
        self._clients = list(nodes.values())
        for client_id in self._clients:
            self.models.setdefault(client_id, wire.flat_of(arrays, self._layout).numpy().copy())
        weights = self._weights(len(nodes))
        self._eigenvalue = second_eigenvalue(weights)
        common, group = {**config, wire.SERVER_ROUND: server_round}, str(server_round)
        return [
            Message(self._content(place, weights, common), node, MessageType.TRAIN, group_id=group)
            for place, node in enumerate(nodes)
        ]

    def _weights(self, size: int) -> Weights:
        settings = self._settings
        return mixing_weights(adjacency(settings.topology, size, settings.edge_probability, self._seed))

    def _content(self, place: int, weights: Weights, common: Mapping[str, object]) -> RecordDict:
        neighbours = [j for j in np.flatnonzero(weights[place]).tolist() if j != place]
        row = [float(weights[place, j]) for j in (place, *neighbours)]
        content = RecordDict({wire.CONFIG: ConfigRecord({**common, WEIGHTS: row})})  # type: ignore[dict-item]
        for number, j in enumerate((place, *neighbours)):
            content[f"{NEIGHBOUR}{number}" if number else wire.ARRAYS] = self._record(self._clients[j])
        return content

    def _record(self, client_id: str) -> ArrayRecord:
        return wire.FlatRecord(torch.from_numpy(self.models[client_id]), self._layout)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take the new models; return the mean of all, or (None, None) when no client answered."""
        metrics, count = MetricMeans(), 0
        for reply in all_checked(replies, "Gossip"):
            count += 1
            self.models[reply.update.client_id] = reply.update.delta.numpy().copy()
            metrics.add(reply.update.metrics, reply.update.num_examples)
        if not count:
            return None, None
        models = [torch.from_numpy(self.models[i]) for i in self._clients]
        mean = mixed(models, [1.0 / len(models)] * len(models))
        figures = {DISTANCE: consensus_distance(models), EIGENVALUE: self._eigenvalue}
        return wire.FlatRecord(mean, self._layout), MetricRecord({**metrics.means(), **figures})

    def summary(self) -> None:
        """Log what the strategy does."""
        _logger.info("gossip: %s", self._settings.topology)


ALGORITHM = Algorithm(
    "no global model: every client mixes its own with those of its neighbours in a topology",
    train_client,
    lambda side: Gossip(side.settings, side.seed),
)

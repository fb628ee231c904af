"""FedMD: each client has a model of its own and learns from what all answer on public data; the server half.

What the training loop calls the model is here the last round's consensus, shape [n, classes]: all that the
server has. A round has two exchanges. The clients' logits come as replies to the first, pass the guard, and
are logged as they are; the consensus goes back with the second.
"""

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn, final

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies import algorithm
from strategies.client.training import ClientJob
from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.fedmd import client
from strategies.fedmd.consensus import (
    confidence_consensus,
    draw_alignment,
    mean_consensus,
    variance_consensus,
)
from strategies.fedmd.privacy import epsilon
from strategies.fedmd.settings import FedMDSettings
from strategies.server.guard import ClientUpdate, all_checked
from strategies.server.wrapper import ReturnResult, ServerHalf, StrategyWrapper, innermost
from strategies.settings import StrategySettings

_logger = logging.getLogger(__name__)

GAIN = "collaboration-gain"
"""Mean over the clients of accuracy minus baseline, in points."""
MEAN_ACCURACY = "test-accuracy"
"""Mean of the clients' accuracies on the test data, in percent."""


@dataclass(frozen=True, eq=False)
class ServerSide:
    """What the server knows besides the settings.

    Parameters
    ----------
    labels
        Of the public data, shape [n].
    seed
        The run's seed; decides the alignment subsets.
    rounds, evaluate_every
        When the clients report their accuracy: every so many rounds, and after the last.
    """

    labels: Tensor
    num_outputs: int
    seed: int
    rounds: int
    evaluate_every: int = 1


def initial_state(settings: StrategySettings, num_public: int, num_outputs: int) -> wire.State:
    """Return the consensus before the first round: zeros, shape [n, classes]."""
    return {client.LOGITS: torch.zeros(settings.own(FedMDSettings).alignment_size(num_public), num_outputs)}


@final
class FedMD(ServerHalf):
    """The server half, a Flower strategy with a second exchange per round."""

    is_weighted_average = False
    replies_are_updates = False

    def __init__(self, settings: StrategySettings, side: ServerSide) -> None:
        self._settings = settings.own(FedMDSettings)
        self._side = side

    def aggregation_weight(self, update: ClientUpdate) -> float:
        """Return what a client's whole answer counts, before division by the sum over the clients."""
        return self._weight(update.client_id)

    def _weight(self, client_id: str) -> float:
        weighted = self._settings.consensus == "weighted"
        return self._settings.consensus_weights.get(client_id, 1.0) if weighted else 1.0

    def alignment(self, server_round: int) -> Tensor:
        """Return the positions of the round's public examples."""
        count = self._settings.alignment_size(len(self._side.labels))
        return draw_alignment(self._side.labels, count, self._side.seed, server_round)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every node of the grid for its logits on the round's alignment subset; send indices only."""
        content = RecordDict({wire.CONFIG: ConfigRecord({**config, **self._entries(server_round)})})
        return [
            Message(content, node_id, client.QUERY, group_id=str(server_round))
            for node_id in grid.get_node_ids()
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the consensus of the usable answers, or (None, None) when there is none.

        Answers are small, so all of a round are held until the last has come.
        """
        logits: dict[str, Tensor] = {}
        anew, spent = 0, 0.0
        for reply in all_checked(replies, "FedMD"):
            update = reply.update
            logits[update.client_id] = update.delta.view(-1, self._side.num_outputs)
            anew += client.ANEW in update.metrics
            spent = max(spent, update.metrics.get(wire.EPSILON, 0.0))
        if not logits:
            return None, None
        metrics: dict[str, float] = {"clients-made-anew": float(anew)} if anew else {}
        return wire.record_of({client.LOGITS: self.consensus(logits)}), MetricRecord(
            dict(metrics | self._privacy(server_round, spent))
        )

    def consensus(self, logits: dict[str, Tensor]) -> Tensor:
        """Return the consensus of the clients' logits, shape [n, classes], as each client's are."""
        if self._settings.consensus == "confidence":
            return confidence_consensus(logits)
        if self._settings.consensus == "variance":
            return variance_consensus(logits)
        return mean_consensus(logits, {i: self._weight(i) for i in logits})

    def configure_return(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the consensus to every node of the grid."""
        last = server_round == self._side.rounds
        measure = last or server_round % self._side.evaluate_every == 0
        entries = {**config, **self._entries(server_round), wire.MEASURE: measure}
        content = RecordDict({wire.ARRAYS: arrays, wire.CONFIG: ConfigRecord(entries)})
        return [
            Message(content, node_id, client.DIGEST, group_id=str(server_round))
            for node_id in grid.get_node_ids()
        ]

    def aggregate_return(self, server_round: int, replies: Iterable[Message]) -> ReturnResult:
        """Return what the clients measured, and the means over those that did."""
        clients, rejected = {}, {}
        for reply in replies:
            client_id = wire.client_id_in(reply.content) or str(reply.metadata.src_node_id)
            numbers = dict(wire.iter_numbers(reply.content.metric_records.get(wire.METRICS, {})))
            numbers.pop(wire.NUM_EXAMPLES, None)
            if all(math.isfinite(value) for value in numbers.values()):
                clients[client_id] = numbers
            else:
                rejected[client_id] = "reports figures that are not finite: its model diverged"
        ordered = {i: clients[i] for i in sorted(clients, key=wire.client_sort_key)}
        return ReturnResult(means(list(ordered.values())), ordered, rejected)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return nothing: there is no global model to evaluate."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return nothing: there is no global model to evaluate."""
        return None

    def summary(self) -> None:
        """Log what the strategy does."""
        _logger.info("FedMD: %s consensus of logits", self._settings.consensus)

    def _entries(self, server_round: int) -> dict[str, int | list[int]]:
        return {wire.SERVER_ROUND: server_round, client.ALIGNMENT: self.alignment(server_round).tolist()}

    def _privacy(self, server_round: int, reported: float) -> dict[str, float]:
        """Return ε of one answer, and of one in each round so far; a client that reports more is believed."""
        if self._settings.logit_noise == 0:
            return {}
        composed = max(reported, self.epsilon_of_answers(server_round))
        return {"epsilon-round": self.epsilon_of_answers(1), wire.EPSILON: composed}

    def epsilon_of_answers(self, answers: int) -> float:
        """Return the ε of a client that answered so often; infinite without noise."""
        count = self._settings.alignment_size(len(self._side.labels))
        return epsilon(self._settings.logit_noise, count, answers, self._settings.logit_delta)


@final
class RepeatedAnswers(StrategyWrapper):
    """Count, in the ε of a round, the answers to rounds that were interrupted and asked again.

    A client counts them itself unless its state went back with the run, as a simulated client's does.

    Parameters
    ----------
    inner
        `FedMD` in any wrappers.
    repeats
        How many rounds were interrupted after clients had been asked.

    Raises
    ------
    LetheError
        If the strategy is another one.
    """

    def __init__(self, inner: Strategy, repeats: int) -> None:
        super().__init__(inner)
        strategy = innermost(inner)
        if not isinstance(strategy, FedMD):
            raise LetheError("strategy.logit-noise: only fedmd asks for logits")
        self._fedmd, self._repeats = strategy, repeats

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the wrapped strategy's result with the larger ε."""
        arrays, metrics = self.inner.aggregate_train(server_round, replies)
        if metrics is not None:
            composed = self._fedmd.epsilon_of_answers(server_round + self._repeats)
            metrics[wire.EPSILON] = max(float(str(metrics[wire.EPSILON])), composed)
        return arrays, metrics


def means(clients: list[dict[str, float]]) -> dict[str, float]:
    """Return the figures of a round: means over the clients that measured them.

    Examples
    --------
    >>> means([{"accuracy": 70.0, "baseline-accuracy": 50.0}, {"accuracy": 60.0, "baseline-accuracy": 58.0}])
    {'test-accuracy': 65.0, 'baseline-accuracy': 54.0, 'collaboration-gain': 11.0}
    """
    named = {
        wire.TRAIN_LOSS: [c[wire.TRAIN_LOSS] for c in clients if wire.TRAIN_LOSS in c],
        MEAN_ACCURACY: [c[wire.ACCURACY] for c in clients if wire.ACCURACY in c],
        client.BASELINE: [c[client.BASELINE] for c in clients if client.BASELINE in c],
        client.UPPER_BOUND: [c[client.UPPER_BOUND] for c in clients if client.UPPER_BOUND in c],
        GAIN: [
            c[wire.ACCURACY] - c[client.BASELINE]
            for c in clients
            if wire.ACCURACY in c and client.BASELINE in c
        ],
    }
    return {name: sum(values) / len(values) for name, values in named.items() if values}


def _build(side: algorithm.ServerSide) -> Strategy:
    measured = ServerSide(
        side.public.targets(), side.required_holdings.num_outputs, side.seed, side.rounds, side.evaluate_every
    )
    return FedMD(side.settings, measured)


def _check_client(settings: StrategySettings, own_data: bool) -> None:
    if settings.own(FedMDSettings).upper_bound and own_data:
        raise BadInput(
            "strategy.upper-bound: needs all clients' data in one place, but this node has its own"
        )


def _no_model(job: ClientJob) -> NoReturn:
    raise LetheError("a client with a model of its own trains no model of the server's")


ALGORITHM = algorithm.Algorithm(
    "clients with different models learn from each other's logits on public data",
    _no_model,
    _build,
    reports=client.REPORTS,
    returns=client.RETURNS,
    handlers={
        client.QUERY: lambda work: client.answer_query(client.FedMDWork.of(work)),
        client.DIGEST: lambda work: client.answer_digest(client.FedMDWork.of(work)),
    },
    initial=initial_state,
    model_names=lambda settings: settings.own(FedMDSettings).model_names,
    check_client=_check_client,
    named_clients=lambda settings: {"strategy.weights": settings.own(FedMDSettings).consensus_weights},
    counting_repeats=RepeatedAnswers,
    kept=client.KIND,
)

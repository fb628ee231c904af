"""SCAFFOLD: control variates keep clients with different data from drifting apart.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled Averaging for Federated
Learning", ICML 2020, arXiv 1910.06378, Algorithm 1 with option II. Client i takes K local steps

    y ← y − η (g_i(y) − c_i + c),    then    c_i⁺ = c_i − c + (x − y) / (K η)

and sends y − x and c_i⁺ − c_i. The server averages the models and moves its control variate by

    c ← c + (1/N) Σ_i (c_i⁺ − c_i)

over the clients that answered, of N in the federation. Differs from the paper: where η changes from step to
step, K η is the sum of the steps' η; models are averaged weighted by examples, as in FedAvg, with a global
step size of 1, and the correction c − c_i may count less than 1. In the first round all control variates are
zero, so that round is FedAvg's, to the bit, and so are all with a share of 0.

A client takes up its new control variate when the server says that it used it: an answer that is lost, late
or rejected leaves both sides as they were, and c stays the sum of the c_i over N.

What is left of a forgotten client: its gradients are part of c, which moved the others' local steps, as its
updates moved the model that they began from. The log holds the updates, so that subtraction is what it is for
FedAvg; every retraining, and every training after a forgetting, begins with control variates of zero.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import final

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies import fedavg
from strategies.algorithm import Algorithm, Members, ServerSide
from strategies.client.proposed import Confirmed, Proposed
from strategies.client.training import (
    ClientJob,
    LocalResult,
    LocalTraining,
    StepState,
    TrainStats,
    by_parameter,
    trained,
)
from strategies.core import wire
from strategies.models import travelling
from strategies.scaffold.settings import ScaffoldSettings
from strategies.server.aggregation import ExactSum
from strategies.server.guard import all_checked
from strategies.server.wrapper import StrategyWrapper

CONTROL = "control"
"""Array record, both ways, with the layout of the model: c to the client, c_i⁺ − c_i back."""
_STATE = "scaffold"


def new_control(own: Tensor, server: Tensor, before: Tensor, after: Tensor, moved: float) -> Tensor:
    """Return c_i⁺ = c_i − c + (x − y) / (K η).

    Parameters
    ----------
    own, server
        c_i and c, shape [size].
    before, after
        x and y, shape [size].
    moved
        K η, the sum of the steps' learning rates, above 0.
    """
    return own - server + (before - after) / moved


def _kept(job: ClientJob, size: int) -> Proposed:
    return Proposed(job.state, job.received.config_records[wire.CONFIG], size, _STATE)


def prepare(job: ClientJob) -> StepState:
    """Return the correction c − c_i, or a share of it."""
    if CONTROL not in job.received.array_records:  # Asked by a forgetting method, which has no c
        return StepState()
    layout = travelling.layout_of(job.model)
    server = wire.flat_of(job.received.array_records[CONTROL], layout)
    term = job.strategy.own(ScaffoldSettings).control_share * (server - _kept(job, layout.size).value)
    correction = by_parameter(job.model, term, layout) if bool(term.any()) else ()
    return StepState(correction=correction, before=layout.flatten(job.model.state_dict()))


def finish(job: ClientJob, state: StepState, stats: TrainStats) -> LocalResult:
    """Return the trained model with the change of the control variate, which is kept until it is used."""
    if CONTROL not in job.received.array_records:
        return trained(job, stats)
    layout = travelling.layout_of(job.model)
    server = wire.flat_of(job.received.array_records[CONTROL], layout)
    after, kept = layout.flatten(job.model.state_dict()), _kept(job, layout.size)
    moved = math.fsum(job.rates())
    change = new_control(kept.value, server, state.before, after, moved) - kept.value
    kept.propose(kept.value + change, job.server_round)
    return trained(job, stats, {CONTROL: change})


train_client = LocalTraining(prepare, finish)
"""The client half: local steps with the correction, and the new control variate."""


@final
class Scaffold(StrategyWrapper):
    """The server half around averaging: sends c with the model, and moves it by what comes back.

    Parameters
    ----------
    names
        Node id -> client-id of all clients of the federation, kept up to date by its owner.
    """

    memory_name = "scaffold"

    def __init__(self, inner: Strategy, names: Mapping[int, str]) -> None:
        super().__init__(inner)
        self._names = names
        self._confirmed = Confirmed()
        self._control = torch.zeros(0)

    @property
    def reply_records(self) -> tuple[str, ...]:
        """The change of the client's control variate."""
        return (CONTROL,)

    def memory(self) -> dict[str, Tensor]:
        """Return c, and which answers were used."""
        return {"control": self._control, **self._confirmed.memory()}

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `memory` returned."""
        self._control = tensors["control"].clone()
        self._confirmed.recall(tensors)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the model with c."""
        layout = wire.layout_of(arrays)
        if len(self._control) != layout.size:
            self._control = torch.zeros(layout.size)
        record = wire.FlatRecord(self._control, layout)
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        for message in messages:
            self._confirmed.tell(message, self._names[message.metadata.dst_node_id])
            message.content[CONTROL] = record
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the averaged model; c moves with it, or not at all."""
        total, used = ExactSum(len(self._control)), list[str]()

        def noted() -> Iterator[Message]:
            for reply in all_checked(replies, "Scaffold"):
                total.add(reply.update.records[CONTROL], 1.0)
                used.append(reply.update.client_id)
                yield reply

        arrays, metrics = self.inner.aggregate_train(server_round, noted())
        if arrays is not None:
            clients = max(len(set(self._names.values())), len(used))
            self._control = total.added_to(self._control, clients)
            self._confirmed.note(used, server_round)
        return arrays, metrics


def _around(inner: Strategy, side: ServerSide, members: Members) -> Scaffold:
    return Scaffold(inner, members.names)


ALGORITHM = Algorithm(
    "averaging with control variates, which keep clients with different data from drifting apart",
    train_client,
    lambda side: fedavg.FedAvg(),
    around=_around,
)

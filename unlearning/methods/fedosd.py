"""FedOSD: unlearn along a direction that leaves the others' losses alone, recover without going back.

Pan, Wang, Li, Zheng, Wang, Tang, Zhao, "Federated Unlearning with Gradient Descent and Conflict Mitigation",
AAAI 2025, arXiv 2412.20200; the directions are in `unlearning.central.fedosd`:

    unlearning    w ← w − η d,  d = g_u − Aᵀ (A Aᵀ)⁺ A g_u at the length of g_u, for some rounds
    recovery      w ← w + Σ_k (n_k / n) Δ̃_k,  Δ̃_k = Δ_k without its part along w − w_orig, at its own length

g_u is the gradient of −log(1 − p_y / 2) over D_f, the rows of A are each client's gradient over its retained
data, all of them means over examples; Δ_k is the update of a round as the run trained.

Differs from the paper: gradients are those of the full data at the current model, for classes and examples as
well, where a client may hold some of both sets; recovery is weighted by examples, as training was.

Guarantee: none; both statements hold to first order, at the current model. Needs: the clients that hold D_f
and the remaining ones online. At 0 rounds of both the model comes back unchanged. Cost: a visit to every
client per unlearning round, and the recovery rounds.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import final

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.fedavg import FedAvg
from strategies.server.guard import CheckedReply
from strategies.server.wrapper import StrategyWrapper
from unlearning.central.fedosd import recovery_gradient, unlearning_loss_each, unlearning_step
from unlearning.central.gradients import ExampleSum, Objective, gradient_sum
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork, Method, Outcome
from unlearning.methods.federated import (
    FederatedWork,
    clients_asked,
    clients_with_retained,
    received_model,
)
from unlearning.methods.sums import answer_with, ask_for_sums
from unlearning.traits.fedosd import NAME, TRAITS, FedOsdSettings

ACTION = "query.fedosd"
FORGET, RETAIN = "forget", "retain"


def fedosd_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half: gradient sums over the forgotten and over the retained data."""
    model = received_model(work)
    return answer_with(
        {
            FORGET: gradient_sum(model, work.forget, Objective(work.task, unlearning_loss_each)),
            RETAIN: gradient_sum(model, work.retain, Objective(work.task)),
        }
    )


def unlearned(flat: Tensor, sums: Mapping[str, Mapping[str, ExampleSum]], learning_rate: float) -> Tensor:
    """Return the model after one step along the orthogonal direction, shape [P], float32.

    `sums` are each client's gradient sums over its part of D_f and of D_r; LetheError if none is over an
    example of D_f.
    """
    gradients = ExampleSum.join(each[FORGET] for each in sums.values()) if sums else None
    if gradients is None or not gradients.count:
        raise LetheError("fedosd: no client answered usefully that holds what is to be forgotten")
    rows = [each[RETAIN].mean for each in sums.values() if each[RETAIN].count]
    return (flat.double() - learning_rate * unlearning_step(gradients.mean, rows)).float()


@final
class OneWayRecovery(StrategyWrapper):
    """Remove from each update its part along the way back to `original`, w_orig, before `inner` averages."""

    def __init__(self, inner: Strategy, original: Tensor) -> None:
        super().__init__(inner)
        self._original = original
        self._current = original

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember where the round starts."""
        self._current = wire.flat_of(arrays, wire.layout_of(arrays))
        return self.inner.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the projected updates."""
        return self.inner.aggregate_train(server_round, self._projected(replies))

    def _projected(self, replies: Iterable[Message]) -> Iterator[Message]:
        for reply in replies:
            if not isinstance(reply, CheckedReply):
                raise LetheError("fedosd: a reply was not checked; put OneWayRecovery inside GuardedStrategy")
            delta = recovery_gradient(reply.update.delta, self._current, self._original).float()
            yield CheckedReply.of(reply, replace(reply.update, delta=delta))


def unlearning_rounds(job: ForgetJob, work: FederatedWork, settings: FedOsdSettings) -> Tensor:
    """Return the model after the steps along orthogonal directions, shape [P]."""
    flat, layout, cohort = job.run.final, job.run.layout, clients_asked(job)
    for _ in range(settings.unlearning_rounds):
        records = {wire.ARRAYS: wire.FlatRecord(flat, layout)}
        sums = ask_for_sums(cohort, ACTION, job.spec, records, (FORGET, RETAIN), layout.size)
        flat = unlearned(flat, sums, settings.learning_rate)
        work.advance()
    return flat


def unlearned_and_recovered(job: ForgetJob) -> Outcome:
    """Return the model after unlearning along orthogonal directions and recovery by the remaining clients."""
    original = job.run.final
    settings = job.settings.own(NAME, FedOsdSettings)
    work = FederatedWork(job, settings.unlearning_rounds + settings.recovery_rounds)
    flat = unlearning_rounds(job, work, settings)
    moved = float(torch.linalg.vector_norm(flat.double() - original.double()))
    flat = work.train(
        flat, settings.recovery_rounds, clients_with_retained(job), lambda: OneWayRecovery(FedAvg(), original)
    )
    return Outcome(flat, job.absence_notes, {**settings.model_dump(), "distance": moved})


METHOD = Method.of(TRAITS, run=unlearned_and_recovered, actions={ACTION: fedosd_client})

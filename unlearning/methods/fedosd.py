"""FedOSD: unlearn along a direction that leaves the others' losses alone, recover without going back.

Pan, Wang, Li, Zheng, Wang, Tang, Zhao, "Federated Unlearning with Gradient Descent and Conflict Mitigation",
AAAI 2025, arXiv 2412.20200; the directions are in `unlearning.central.fedosd`:

    unlearning    w ← w − η d,  d = g_u − Aᵀ (A Aᵀ)⁺ A g_u at the length of g_u
    recovery      w ← w + Σ_k (n_k / n) Δ̃_k,  Δ̃_k = Δ_k without its part along w − w_orig, at its own length

g_u is the gradient of −log(1 − p_y / 2) over D_f, the rows of A are each client's gradient over its retained
data, all of them means over examples; Δ_k is the update of a round as the run trained.

How long: until D_f looks like data that nobody trained on (`unlearning.methods.stopping`); then g_u is the
gradient of −log(1 − p_y), which does not fade at p_y = 1 as the paper's does, and each step has a share of
‖w‖ as its length. With a number of ``unlearning-rounds`` it is the paper's loss and η.

Differs from the paper: gradients are those of the full data at the current model, for classes and examples as
well, where a client may hold some of both sets; recovery is weighted by examples, as training was.

Guarantee: none; both statements hold to first order, at the current model. Needs: the clients that hold D_f
and the remaining ones online. At 0 rounds of both the model comes back unchanged. Cost: a visit to every
client per unlearning round, and the recovery rounds.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, final

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
from unlearning.central.stopping import Standing, StepSettings, unsaturated
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork, Method, Outcome
from unlearning.methods.federated import (
    FederatedWork,
    clients_asked,
    clients_with_retained,
    received_model,
)
from unlearning.methods.stopping import (
    SIZE,
    STANDING,
    Sums,
    goal_entries,
    goal_in,
    goal_of,
    joined,
    standing_sum,
    told,
    until_goal,
)
from unlearning.methods.sums import answer_with, ask_for_sums
from unlearning.traits.fedosd import NAME, TRAITS, FedOsdSettings

ACTION = "query.fedosd"
FORGET, RETAIN = "forget", "retain"
CAP = f"forget.{NAME}.max-steps"


def fedosd_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half: gradient sums over the forgotten and over the retained data."""
    model, goal = received_model(work), goal_in(work.config)
    loss = unlearning_loss_each if goal is None else unsaturated(work.task)
    sums = {
        FORGET: gradient_sum(model, work.forget, Objective(work.task, loss)),
        RETAIN: gradient_sum(model, work.retain, Objective(work.task)),
    }
    if goal is not None:
        sums[STANDING] = standing_sum(model, work.forget, goal, work.task)
    return answer_with(sums)


def unlearned(flat: Tensor, away: Tensor, learning_rate: float) -> Tensor:
    """Return the model after one step against a direction, all of shape [P], float32."""
    return (flat.double() - learning_rate * away).float()


def direction(sums: Sums) -> Tensor:
    """Return d, which a step goes against, shape [P], float64.

    `sums` are each client's gradient sums over its part of D_f and of D_r; LetheError if none is over an
    example of D_f.
    """
    gradients = ExampleSum.join(each[FORGET] for each in sums.values()) if sums else None
    if gradients is None or not gradients.count:
        raise LetheError("fedosd: no client answered usefully that holds what is to be forgotten")
    rows = [each[RETAIN].mean for each in sums.values() if each[RETAIN].count]
    return unlearning_step(gradients.mean, rows)


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


def unlearning_rounds(job: ForgetJob, work: FederatedWork, rounds: int, learning_rate: float) -> Tensor:
    """Return the model after some steps along orthogonal directions, shape [P]."""
    run, flat, layout, cohort = job.run, job.run.final, job.run.layout, clients_asked(job)
    sizes = dict.fromkeys((FORGET, RETAIN), run.num_trained)
    for _ in range(rounds):
        records = {wire.ARRAYS: wire.FlatRecord(flat, layout)}
        sums = ask_for_sums(cohort, ACTION, job.spec, records, sizes)
        flat = run.settled(unlearned(flat, run.spread(direction(sums)), learning_rate))
        work.advance()
    return flat


def unlearning_steps(
    job: ForgetJob, work: FederatedWork, settings: FedOsdSettings
) -> tuple[Tensor, list[str], dict[str, Any]]:
    """Return the model after steps until the goal is met, shape [P], with notes and details."""
    layout, cohort = job.run.layout, clients_asked(job)
    goal, notes = goal_of(job)
    sizes = {**dict.fromkeys((FORGET, RETAIN), job.run.num_trained), STANDING: SIZE}
    entries = goal_entries(goal)

    def ask(flat: Tensor) -> tuple[Sums, Standing]:
        records = {wire.ARRAYS: wire.FlatRecord(flat, layout)}
        sums = ask_for_sums(cohort, ACTION, job.spec, records, sizes, lambda _: entries)
        return sums, joined(job, cohort, ACTION, sums)[0]

    steps = StepSettings(step_share=settings.step_share, max_steps=settings.max_steps)
    reached = until_goal(job, work, steps, ask, direction)
    more, details = told(NAME, CAP, settings.max_steps, reached.steps, reached.standing)
    return reached.flat, [*notes, *more], details


def unlearned_and_recovered(job: ForgetJob) -> Outcome:
    """Return the model after unlearning along orthogonal directions and recovery by the remaining clients."""
    original = job.run.final
    settings = job.settings.own(NAME, FedOsdSettings)
    given, notes, details = settings.unlearning_rounds, list[str](), dict[str, Any]()
    most = settings.max_steps if given == "auto" else given
    work = FederatedWork(job, most + settings.recovery_rounds)
    if given == "auto":
        flat, notes, details = unlearning_steps(job, work, settings)
        work.total_rounds = work.done + settings.recovery_rounds
    else:
        flat = unlearning_rounds(job, work, given, settings.learning_rate)
    moved = float(torch.linalg.vector_norm(flat.double() - original.double()))
    flat = work.train(
        flat, settings.recovery_rounds, clients_with_retained(job), lambda: OneWayRecovery(FedAvg(), original)
    )
    return Outcome(
        flat, [*job.absence_notes, *notes], {**settings.model_dump(), **details, "distance": moved}
    )


METHOD = Method.of(TRAITS, run=unlearned_and_recovered, actions={ACTION: fedosd_client})

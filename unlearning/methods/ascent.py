"""Gradient ascent: clients with forgotten data move the model up the loss on it.

A client that leaves: projected ascent after Halimi, Kadhe, Rawat, Baracaldo, "Federated Unlearning: How to
Efficiently Erase a Client in FL?", arXiv 2207.05521:

    w_ref = (N·w − w_i) / (N − 1),    max_w L(w; D_i)  subject to  ‖w − w_ref‖₂ ≤ δ,

δ a third of the mean distance from w_ref to random models; then rounds of the remaining clients. Classes and
examples: ascent after Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine
Unlearning", NeurIPS 2023, arXiv 2304.04934, section 3, one local pass over D_f per round by the clients that
hold some of it, averaged by their examples; then, if asked for, rounds without D_f. Both central forms are in
`unlearning.central.ascent`.

How far: until D_f looks like data that nobody trained on (`unlearning.methods.stopping`), by steps of one
length along the full gradient of a loss that does not fade where the model is sure. A leaving client takes
them itself, in the ball; of classes and examples each step is one visit to those that hold them. With a
number of ``epochs`` it is by passes of SGD, as in the papers.

Differs from Halimi et al.: w_ref is formed with the weights of the run's last round, w_ref = (w − p·w_i) / (1
− p), which is theirs at p = 1/N and w itself where the client took no part in that round; random models are
the run's initial one with the entries of each tensor shuffled. w_i comes from the log, or, where that does
not hold the last round, from a round of the leaving client alone. Several clients leave at once, each from
the same w_ref without any of them; their models are averaged. Differs from Jia et al.: passes
over classes and examples end early as Halimi's do, once the accuracy on D_f is below ``stop-accuracy``.

Guarantee: none; ascent destroys what the model says about D_f, which retraining would not, and a step size at
which it does so without destroying the rest is narrow. Needs: the clients that hold D_f online, and the
remaining ones for recovery. Cost: one or two visits to the leaving client, or a round per epoch of those that
hold D_f; and the recovery rounds.
"""

from typing import Any, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from strategies.client.evaluation import evaluate
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.server.cohort import Cohort
from unlearning.central.ascent import (
    AscentSettings,
    ProjectedAscentSettings,
    ascend,
    ascend_until,
    ball_radius,
    project,
    projected_ascent,
)
from unlearning.central.gradients import ExampleSum, Objective, gradient_sum
from unlearning.central.parameters import flat_parameters
from unlearning.central.stopping import Goal, Standing, StepSettings, unsaturated
from unlearning.central.training import SgdSettings
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork, Method, Outcome
from unlearning.methods.federated import (
    EVERYONE,
    FederatedWork,
    clients_with_forgotten,
    clients_with_retained,
    received_model,
    settings_entries,
    settings_in,
    shuffled,
    trained_answer,
)
from unlearning.methods.stopping import (
    MEASURE,
    SIZE,
    STANDING,
    Sums,
    goal_entries,
    goal_in,
    goal_of,
    joined,
    measured,
    measuring_client,
    standing_sum,
    told,
    until_goal,
)
from unlearning.methods.subtract import renormalised_step
from unlearning.methods.sums import answer_with, ask_for_sums
from unlearning.traits.ascent import NAME, TRAITS, AscentRounds

C = TypeVar("C", bound=SgdSettings)

ASCENT = "train.ascent"
PROJECTED = "train.projected_ascent"
STEPS_IN_BALL = "train.ascent_until"
GRADIENT = "query.ascent"
FORGET = "forget"
RADIUS = "radius"
"""float >= 0, server to client, with both forms of projected ascent: δ."""
RANDOM_MODELS = 10
CAP = f"forget.{NAME}.max-steps"


class LeavingSettings(ProjectedAscentSettings):
    """Projected ascent of a leaving client."""

    learning_rate: float = Field(default=0.003, gt=0)
    recovery_rounds: int = Field(default=3, ge=0)


class ClassSettings(AscentSettings):
    """Ascent on classes."""

    epochs: int = Field(default=20, ge=0)
    learning_rate: float = Field(default=0.02, gt=0)
    stop_accuracy: float = Field(default=12.0, ge=0, le=100)
    recovery_rounds: int = Field(default=0, ge=0)


class SampleSettings(ClassSettings):
    """Ascent on examples, most of which a model without them would still get right."""

    epochs: int = Field(default=5, ge=0)


def settings_for(job: ForgetJob, kind: type[C]) -> C:
    """Return the settings of a kind of ascent: the given values, else the defaults of the kind."""
    own = job.settings.own(NAME, AscentRounds).model_dump()
    given = {name: own[name] for name in kind.model_fields if name in own and own[name] != "auto"}
    train = job.run.train
    return kind.model_validate({**given, "momentum": train.momentum, "weight_decay": train.weight_decay})


def ascent_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half for classes and examples: one pass up the loss on the forgotten data.

    The answer also holds the accuracy of the model that came.
    """
    settings, model = settings_in(AscentSettings, work.config), received_model(work)
    metrics = {wire.ACCURACY: evaluate(model, work.forget, task=work.task).accuracy}
    higher = ascend(model, work.forget, settings, work.generator, task=work.task)
    return trained_answer(higher, len(work.forget), metrics)


def projected_client(work: ForgetWork) -> ClientAnswer:
    """Run the leaving client's half: projected ascent from the model that came, w_ref."""
    model = received_model(work)
    settings, radius = settings_in(ProjectedAscentSettings, work.config), float(work.config[RADIUS])
    start = flat_parameters(model)
    up = projected_ascent(model, work.forget, start, radius, settings, work.generator, work.task)
    return trained_answer(up, len(work.forget))


def in_ball_client(work: ForgetWork) -> ClientAnswer:
    """Run the leaving client's half: steps in the ball around the model that came until its goal is met."""
    model, settings = received_model(work), settings_in(StepSettings, work.config)
    center, radius = flat_parameters(model), float(work.config[RADIUS])
    found = ascend_until(
        model,
        work.forget,
        goal_in(work.config) or Goal(),
        settings,
        within=lambda flat: project(flat, center, radius),
        task=work.task,
    )
    return trained_answer(found.model, len(work.forget), {wire.NUM_STEPS: found.steps})


def gradient_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half of a step for classes and examples: where D_f stands, and the way from there."""
    model, goal = received_model(work), goal_in(work.config) or Goal()
    return answer_with(
        {
            FORGET: gradient_sum(model, work.forget, Objective(work.task, unsaturated(work.task))),
            STANDING: standing_sum(model, work.forget, goal, work.task),
        }
    )


def radius_around(job: ForgetJob, reference: Tensor) -> float:
    """Return δ for w_ref, shape [P]; of a pruned run, the random models are pruned alike."""
    run, generator = job.run, job.generator("radius")
    kept = torch.ones_like(run.initial) if run.mask is None else run.mask
    models = [kept * shuffled(run.initial, run.layout, generator) for _ in range(RANDOM_MODELS)]
    return ball_radius(reference[run.trained], [each[run.trained] for each in models])


def reference_from_log(job: ForgetJob, leaving: Cohort) -> Tensor | None:
    """Return w_ref, shape [P], from the updates of the run's last round; None if the log does not hold them.

    None also after an earlier forgetting, as the model is then not that of the last round, and for
    asynchronous training, whose last step is of a few clients.
    """
    run, log = job.run, job.run.log
    last = run.plan.rounds
    if log is None or last not in log.kept_rounds() or last not in log.averaging_rounds():
        return None
    if run.forgotten or log.purged() or run.plan.strategy.traits.asynchronous:
        return None
    everyone = torch.zeros(run.layout.size, dtype=torch.float64)
    theirs, weight = torch.zeros_like(everyone), 0.0
    for entry in log.entries(last):
        step = entry.weight * log.delta(last, entry.client_id).double()
        everyone += step
        if entry.client_id in leaving.clients:
            theirs += step
            weight += entry.weight
    before = run.final.double() - everyone
    return (before + renormalised_step(everyone, theirs, weight)).float()


def reference_from_round(job: ForgetJob, leaving: Cohort, work: FederatedWork) -> Tensor:
    """Return w_ref, shape [P], with w_i from a round of the leaving clients alone."""
    examples = {i: info.num_examples for i, info in job.connected().clients.items()}
    weight = sum(examples[i] for i in leaving.clients) / sum(examples.values())
    final = job.run.final
    step = work.train(final, 1, leaving).double() - final.double()
    return (final.double() + renormalised_step(torch.zeros_like(step), weight * step, weight)).float()


def ascend_on_clients(job: ForgetJob) -> Outcome:
    """Return the model after projected ascent at the leaving clients and recovery by the others."""
    settings = settings_for(job, LeavingSettings)
    leaving, own = clients_with_forgotten(job), job.settings.own(NAME, AscentRounds)
    work = FederatedWork(job, 1 + settings.recovery_rounds)
    if (reference := reference_from_log(job, leaving)) is None:
        work.total_rounds += 1
        reference = reference_from_round(job, leaving, work)
    radius = radius_around(job, reference)
    asked = own.epochs == "auto"
    goal, notes = goal_of(job) if asked else (Goal(), [])
    how = {**settings_entries(steps_of(own)), **goal_entries(goal)} if asked else settings_entries(settings)
    kind, entry = STEPS_IN_BALL if asked else PROJECTED, {**how, RADIUS: radius}
    flat = work.act(reference, kind, [entry], leaving, drop=job.forget_drop, selection=EVERYONE)
    moved = float(torch.linalg.vector_norm((flat.double() - reference.double())[job.run.trained]))
    details: dict[str, Any] = {"radius": radius, "distance": moved}
    if asked:
        steps, standing = work.metrics.get(wire.NUM_STEPS, 0.0), measured(job, leaving, flat, goal)
        apart = len(leaving.clients) > 1 or job.run.plan.settle is not None
        more, found = told(NAME, CAP, own.max_steps, steps, standing, made=apart)
        notes, details = [*notes, *more], {**details, **found}
    flat = work.train(flat, settings.recovery_rounds, clients_with_retained(job))
    details["recovery_rounds"] = settings.recovery_rounds
    return Outcome(flat, [*job.absence_notes, *notes], details)


def steps_of(own: AscentRounds) -> StepSettings:
    """Return how steps towards a goal are taken."""
    return StepSettings(step_share=own.step_share, max_steps=own.max_steps)


def step_on_examples(job: ForgetJob) -> Outcome:
    """Return the model after steps by the gradients of the clients that hold the classes or examples."""
    own, run, holders = job.settings.own(NAME, AscentRounds), job.run, clients_with_forgotten(job)
    settings = settings_for(job, ClassSettings)
    work = FederatedWork(job, own.max_steps + settings.recovery_rounds)
    goal, notes = goal_of(job)
    sizes, entries = {FORGET: run.num_trained, STANDING: SIZE}, goal_entries(goal)

    def ask(flat: Tensor) -> tuple[Sums, Standing]:
        records = {wire.ARRAYS: wire.FlatRecord(flat, run.layout)}
        sums = ask_for_sums(holders, GRADIENT, job.spec, records, sizes, lambda _: entries)
        return sums, joined(job, holders, GRADIENT, sums)[0]

    def gradient(sums: Sums) -> Tensor:
        return ExampleSum.join(each[FORGET] for each in sums.values()).mean

    reached = until_goal(job, work, steps_of(own), ask, gradient)
    work.total_rounds = work.done + settings.recovery_rounds
    flat = work.train(reached.flat, settings.recovery_rounds, clients_with_retained(job))
    more, details = told(NAME, CAP, own.max_steps, reached.steps, reached.standing)
    return Outcome(
        flat,
        [*job.absence_notes, *notes, *more],
        {**details, "recovery_rounds": settings.recovery_rounds},
    )


def ascend_on_examples(job: ForgetJob) -> Outcome:
    """Return the model after ascent by the clients that hold the classes or examples, and recovery."""
    settings = settings_for(job, ClassSettings if job.request.kind == "class" else SampleSettings)
    entry, holders = settings_entries(settings.model_copy(update={"epochs": 1})), clients_with_forgotten(job)
    work = FederatedWork(job, settings.epochs + settings.recovery_rounds)
    flat, rounds = job.run.final, 0
    for _ in range(settings.epochs):
        higher = work.act(flat, ASCENT, [entry], holders, drop=job.forget_drop, selection=EVERYONE)
        if (accuracy := work.metrics.get(wire.ACCURACY)) is None:
            raise LetheError(f"forgetting {job.request.name}: no client that takes part says its accuracy")
        if accuracy < settings.stop_accuracy:
            break  # The model that came was low enough, so what was made of it is not needed
        flat, rounds = higher, rounds + 1
    work.total_rounds = work.done + settings.recovery_rounds
    flat = work.train(flat, settings.recovery_rounds, clients_with_retained(job))
    details = {"rounds": rounds, "recovery_rounds": settings.recovery_rounds}
    return Outcome(flat, job.absence_notes, details)


def ascended(job: ForgetJob) -> Outcome:
    """Return the model after ascent on what is to be forgotten."""
    if job.request.kind == "client":
        return ascend_on_clients(job)
    asked = job.settings.own(NAME, AscentRounds).epochs == "auto"
    return step_on_examples(job) if asked else ascend_on_examples(job)


METHOD = Method.of(
    TRAITS,
    run=ascended,
    actions={
        ASCENT: ascent_client,
        PROJECTED: projected_client,
        STEPS_IN_BALL: in_ball_client,
        GRADIENT: gradient_client,
        MEASURE: measuring_client,
    },
)

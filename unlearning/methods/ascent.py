"""Gradient ascent: clients with forgotten data move the model up the loss on it.

A client that leaves: projected ascent after Halimi, Kadhe, Rawat, Baracaldo, "Federated Unlearning: How to
Efficiently Erase a Client in FL?", arXiv 2207.05521:

    w_ref = (N·w − w_i) / (N − 1),    max_w L(w; D_i)  subject to  ‖w − w_ref‖₂ ≤ δ,

δ a third of the mean distance from w_ref to random models; then rounds of the remaining clients. Classes and
examples: ascent after Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine
Unlearning", NeurIPS 2023, arXiv 2304.04934, section 3, one local pass over D_f per round by the clients that
hold some of it, averaged by their examples; then, if asked for, rounds without D_f. Both central forms are in
`unlearning.central.ascent`.

Differs from Halimi et al.: w_ref is formed with the weights of the run's last round, w_ref = (w − p·w_i) / (1
− p), which is theirs at p = 1/N and w itself where the client took no part in that round; random models are
the run's initial one with the entries of each tensor shuffled. w_i comes from the log, or, where that does
not hold the last round, from a round of the leaving client alone. Several clients leave at once, each from
the same w_ref without any of them; their models are averaged. Differs from Jia et al.: ascent on classes and
examples ends early as Halimi's does, once the accuracy on D_f is below ``stop-accuracy``.

Guarantee: none; ascent destroys what the model says about D_f, which retraining would not, and a step size at
which it does so without destroying the rest is narrow. Needs: the clients that hold D_f online, and the
remaining ones for recovery. Cost: one or two visits to the leaving client, or a round per epoch of those that
hold D_f; and the recovery rounds.
"""

from typing import TypeVar

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
    ball_radius,
    projected_ascent,
)
from unlearning.central.parameters import flat_parameters
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
from unlearning.methods.subtract import renormalised_step
from unlearning.traits.ascent import NAME, TRAITS, AscentRounds

C = TypeVar("C", bound=SgdSettings)

ASCENT = "train.ascent"
PROJECTED = "train.projected_ascent"
RADIUS = "radius"
"""float >= 0, server to client, with `train.projected_ascent`: δ."""
RANDOM_MODELS = 10


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


def radius_around(job: ForgetJob, reference: Tensor) -> float:
    """Return δ for w_ref, shape [P]; of a pruned run, the random models are pruned alike."""
    run, generator = job.run, job.generator("radius")
    kept = torch.ones_like(run.initial) if run.mask is None else run.mask
    return ball_radius(
        reference, [kept * shuffled(run.initial, run.layout, generator) for _ in range(RANDOM_MODELS)]
    )


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
    leaving = clients_with_forgotten(job)
    work = FederatedWork(job, 1 + settings.recovery_rounds)
    if (reference := reference_from_log(job, leaving)) is None:
        work.total_rounds += 1
        reference = reference_from_round(job, leaving, work)
    radius = radius_around(job, reference)
    entry = {**settings_entries(settings), RADIUS: radius}
    flat = work.act(reference, PROJECTED, [entry], leaving, drop=job.forget_drop, selection=EVERYONE)
    moved = float(torch.linalg.vector_norm(flat.double() - reference.double()))
    flat = work.train(flat, settings.recovery_rounds, clients_with_retained(job))
    details = {"radius": radius, "distance": moved, "recovery_rounds": settings.recovery_rounds}
    return Outcome(flat, job.absence_notes, details)


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
    return ascend_on_clients(job) if job.request.kind == "client" else ascend_on_examples(job)


METHOD = Method.of(TRAITS, run=ascended, actions={ASCENT: ascent_client, PROJECTED: projected_client})

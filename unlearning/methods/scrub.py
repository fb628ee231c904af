"""SCRUB: those that hold the forgotten data move away from the old model's answers, the others back to them.

Kurmanji, Triantafillou, Hayes, Triantafillou, "Towards Unbounded Machine Unlearning", NeurIPS 2023, arXiv
2302.09880, algorithm 1, as federated rounds; the central form is `unlearning.central.scrub`:

    max-epoch:  θ ← Σ_k (n_f,k / n_f) SGD(θ; D_f,k, −KL(f(x; θo) ‖ f(x; θ))),
    min-epoch:  θ ← Σ_k (n_r,k / n_r) SGD(θ; D_r,k, α KL(f(x; θo) ‖ f(x; θ)) + γ ℓ),

one local pass each; the first MAX-STEPS min-epochs have a max-epoch before them. The old model θo is the
teacher and travels with each message.

Differs from the paper: the mean over clients after each pass; no rewinding (SCRUB+R), which needs held-out
data like D_f on the server. Guarantee: none; the answers on D_f become others, not those of a model that
never saw them. Needs: all clients online. At no epoch the model comes back unchanged. Cost: a round of the
remaining clients per epoch, and up to MAX-STEPS of those that hold D_f.
"""

from strategies.core import wire
from unlearning.central.scrub import ScrubSettings, max_epoch, min_epoch
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork, Method, Outcome
from unlearning.methods.federated import (
    EVERYONE,
    FederatedWork,
    clients_with_forgotten,
    clients_with_retained,
    further_model,
    local_settings,
    received_model,
    settings_entries,
    settings_in,
    trained_answer,
)
from unlearning.traits.scrub import NAME, TRAITS, ScrubRounds

MAX, MIN = "train.scrub_max", "train.scrub_min"
TEACHER = "teacher"
"""Record of arrays, server to client: the model before, whose answers count."""


def max_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half of a max-epoch: a pass over the forgotten data, away from the teacher."""
    settings, teacher = settings_in(ScrubSettings, work.config), further_model(work, TEACHER)
    model = max_epoch(received_model(work), work.forget, teacher, settings, work.generator, task=work.task)
    return trained_answer(model, len(work.forget))


def min_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half of a min-epoch: a pass over the retained data, to teacher and targets."""
    settings, teacher = settings_in(ScrubSettings, work.config), further_model(work, TEACHER)
    model = min_epoch(received_model(work), work.retain, teacher, settings, work.generator, task=work.task)
    return trained_answer(model, len(work.retain))


def scrubbed(job: ForgetJob) -> Outcome:
    """Return the model after alternating max- and min-epochs, then min-epochs alone."""
    run, own = job.run, job.settings.own(NAME, ScrubRounds)
    weights = {"teacher_weight": own.teacher_weight, "label_weight": own.label_weight}
    settings = local_settings(job, own, ScrubSettings, max_epochs=own.max_epochs, **weights)
    ascents = min(settings.max_epochs, settings.epochs)
    records = {TEACHER: wire.FlatRecord(run.final, run.layout)}
    work, flat = FederatedWork(job, settings.epochs + ascents, records), run.final
    entry = [settings_entries(settings.model_copy(update={"epochs": 1}))]
    holders, stay = clients_with_forgotten(job), clients_with_retained(job)
    for epoch in range(settings.epochs):
        if epoch < ascents:
            flat = work.act(flat, MAX, entry, holders, drop=job.forget_drop, selection=EVERYONE)
        flat = work.act(flat, MIN, entry, stay)
    details = {"rounds": settings.epochs + ascents, "learning_rate": settings.learning_rate}
    return Outcome(flat, job.absence_notes, details)


METHOD = Method.of(TRAITS, run=scrubbed, actions={MAX: max_client, MIN: min_client})

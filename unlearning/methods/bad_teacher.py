"""Bad teacher: clients learn from the old model on what stays, from a random one on what is forgotten.

Chundawat, Tarun, Mandal, Kankanhalli, "Can Bad Teaching Induce Forgetting?", AAAI 2023, arXiv 2205.08096,
section 4, as federated rounds; the central form is `unlearning.central.bad_teacher`:

    L_k(θ) = (1/n_k) [ Σ_{D_r,k} KL(f(x; θo) ‖ f(x; θ)) + Σ_{D_f,k} KL(f(x; θ_d) ‖ f(x; θ)) ],

a pass of SGD on L_k by every client per round, averaged by n_k. Both teachers travel with each message. The
incompetent one, θ_d, is the run's initial model with the entries of each tensor shuffled, so that it is
random where the run began with trained weights as well.

Differs from the paper: the mean over clients after each pass; all of D_r is used, not 30 %. Guarantee: none;
on D_f the model comes to know nothing, while a retrained one generalises. Needs: all clients online; no label
is read. At 0 epochs the model comes back unchanged. Cost: a round per epoch, with three models to each.
"""

from strategies.core import wire
from unlearning.central.bad_teacher import BadTeacherSettings, bad_teacher
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork, Method, Outcome
from unlearning.methods.federated import (
    FederatedWork,
    further_model,
    local_settings,
    received_model,
    settings_in,
    shuffled,
    trained_answer,
)
from unlearning.traits.bad_teacher import NAME, TRAITS
from unlearning.traits.rounds import RoundSettings

ACTION = "train.bad_teacher"
COMPETENT, INCOMPETENT = "competent", "incompetent"
"""Records of arrays, server to client: both teachers."""


def bad_teacher_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half: a pass over both sets, each with its teacher."""
    settings, parts = settings_in(BadTeacherSettings, work.config), (work.retain, work.forget)
    teachers = further_model(work, COMPETENT), further_model(work, INCOMPETENT)
    model = bad_teacher(received_model(work), teachers, parts, settings, work.generator, task=work.task)
    return trained_answer(model, sum(map(len, parts)))


def badly_taught(job: ForgetJob) -> Outcome:
    """Return the model after rounds with two teachers."""
    run = job.run
    settings = local_settings(job, job.settings.own(NAME, RoundSettings), BadTeacherSettings)
    random = shuffled(run.initial, run.layout, job.generator(NAME))
    models = {COMPETENT: run.final, INCOMPETENT: random}
    records = {name: wire.FlatRecord(flat, run.layout) for name, flat in models.items()}
    flat = FederatedWork(job, settings.epochs, records).passes(ACTION, settings)
    details = {"rounds": settings.epochs, "learning_rate": settings.learning_rate}
    return Outcome(flat, job.absence_notes, details)


METHOD = Method.of(TRAITS, run=badly_taught, actions={ACTION: bad_teacher_client})

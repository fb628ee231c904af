"""Random labels (RL): clients train on what is forgotten with wrong labels, beside what stays.

Golatkar, Achille, Soatto, "Eternal Sunshine of the Spotless Net", CVPR 2020, arXiv 1911.04933, section 6;
Graves, Nagisetty, Ganesh, "Amnesiac Machine Learning", AAAI 2021, arXiv 2010.10981; as federated rounds, the
central form is `unlearning.central.random_labels`:

    θ ← Σ_k (n_k / n) SGD(θ; D_r,k ∪ {(x, y') : (x, y) ∈ D_f,k}),   y' uniform over all labels but y,

one local pass of every client per round.

Differs from the papers: the mean over clients after each pass, and wrong labels that are drawn anew in it.
Guarantee: none; the model learns something false of D_f, which retraining would not teach it. Needs: all
clients online, and class labels. At 0 epochs the model comes back unchanged. Cost: a round per epoch.
"""

from unlearning.central.random_labels import RandomLabelsSettings, random_labels
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork, Method, Outcome
from unlearning.methods.federated import (
    FederatedWork,
    local_settings,
    received_model,
    settings_in,
    trained_answer,
)
from unlearning.traits.random_labels import NAME, TRAITS
from unlearning.traits.rounds import RoundSettings

ACTION = "train.random_labels"


def random_labels_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half: a pass over both sets, the forgotten one with wrong labels."""
    settings = settings_in(RandomLabelsSettings, work.config)
    model = random_labels(
        received_model(work), work.retain, work.forget, settings, work.generator, task=work.task
    )
    return trained_answer(model, len(work.retain) + len(work.forget))


def mislabelled_rounds(job: ForgetJob) -> Outcome:
    """Return the model after rounds with wrong labels."""
    settings = local_settings(job, job.settings.own(NAME, RoundSettings), RandomLabelsSettings)
    flat = FederatedWork(job, settings.epochs).passes(ACTION, settings)
    details = {"rounds": settings.epochs, "learning_rate": settings.learning_rate}
    return Outcome(flat, job.absence_notes, details)


METHOD = Method.of(TRAITS, run=mislabelled_rounds, actions={ACTION: random_labels_client})

"""l1-sparse: federated fine-tuning under an L1 penalty that fades out from round to round.

Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023,
arXiv 2304.04934, section 4, as federated rounds; the central form is `unlearning.central.l1_sparse`:

    θ_{e+1} = Σ_k (n_k / n) SGD(θ_e; D_r,k, + γ_e ‖θ‖₁),    γ_e = γ (1 − e/E),  e = 0, …, E − 1.

Differs from the paper: the mean over clients after each pass, with which momentum starts anew; step size and
batch size as in `finetune`. What a γ does depends on the number of steps and their size. SGD moves a weight
that the loss does not hold by η/(1 − μ)·γ_e per step (μ the momentum), over all passes, of s steps each, by

    η / (1 − μ) · γ · s · (E + 1) / 2,

and the method's own γ makes this 0.2, several times a usual first weight. With the paper's η = 0.01, μ = 0.9,
E = 10 and s = 176 steps that is γ = 2e-3; it has 5e-4.

Guarantee: none; empirically the gap to retraining closes at the cost of fine-tuning. Needs: the remaining
clients online. At γ = 0 it is `finetune`, to the bit. Cost: a round per epoch.
"""

from strategies.server.cohort import Cohort
from unlearning.central.l1_sparse import L1SparseSettings, l1_sparse, penalty_weights
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork, Method, Outcome
from unlearning.methods.federated import (
    FederatedWork,
    clients_with_retained,
    local_settings,
    num_dropped,
    received_model,
    settings_entries,
    settings_in,
    trained_answer,
)
from unlearning.traits.l1_sparse import NAME, TRAITS, L1RoundSettings

ACTION = "train.l1_sparse"


def l1_sparse_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half: one pass over the retained data under the round's penalty."""
    settings = settings_in(L1SparseSettings, work.config)
    model = l1_sparse(received_model(work), work.retain, settings, work.generator, task=work.task)
    return trained_answer(model, len(work.retain))


SHRINKAGE = 0.2
"""How far the penalty moves a weight that the loss does not hold, over all passes, at the method's own γ."""


def default_gamma(settings: L1SparseSettings, steps_per_pass: float) -> float:
    """Return the γ that moves a free weight by `SHRINKAGE`, for a mean number of steps per pass above 0.

    Examples
    --------
    >>> round(default_gamma(L1SparseSettings(epochs=10, learning_rate=0.01, momentum=0.9), 176), 5)
    0.00207
    """
    length = settings.learning_rate / (1 - settings.momentum)
    return 2 * SHRINKAGE / (length * steps_per_pass * (settings.epochs + 1))


def penalised_settings(job: ForgetJob, cohort: Cohort) -> L1SparseSettings:
    """Return how clients train, with the method's own γ where none is given."""
    own = job.settings.own(NAME, L1RoundSettings)
    if own.gamma != "auto":
        return local_settings(job, own, L1SparseSettings, gamma=own.gamma)
    settings = local_settings(job, own, L1SparseSettings)
    kept = [info.num_examples - num_dropped(info, job.drop) for info in cohort.clients.values()]
    steps = [settings.steps_per_epoch(num_examples) for num_examples in kept]
    gamma = default_gamma(settings, sum(steps) / len(steps)) if steps else 0.0
    return settings.model_copy(update={"gamma": gamma})


def settings_by_round(settings: L1SparseSettings) -> list[L1SparseSettings]:
    """Return the settings of each round: one pass at the round's γ_e."""
    return [
        settings.model_copy(update={"epochs": 1, "gamma": gamma})
        for gamma in penalty_weights(settings.gamma, settings.epochs)
    ]


def l1_sparsed(job: ForgetJob) -> Outcome:
    """Return the model after fine-tuning rounds under the fading penalty."""
    cohort = clients_with_retained(job)
    settings = penalised_settings(job, cohort)
    work = FederatedWork(job, settings.epochs)
    flat = work.act(
        job.run.final, ACTION, [settings_entries(each) for each in settings_by_round(settings)], cohort
    )
    rate = settings.learning_rate
    details = {"rounds": settings.epochs, "learning_rate": rate, "gamma": settings.gamma}
    return Outcome(flat, job.absence_notes, details)


METHOD = Method.of(TRAITS, run=l1_sparsed, actions={ACTION: l1_sparse_client})

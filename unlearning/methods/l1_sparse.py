"""l1-sparse: federated fine-tuning under an L1 penalty that fades out from round to round.

Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023,
arXiv 2304.04934, section 4, as federated rounds; the central form is `unlearning.central.l1_sparse`:

    θ_{e+1} = Σ_k (n_k / n) SGD(θ_e; D_r,k, + γ_e ‖θ‖₁),    γ_e = γ (1 − e/E),  e = 0, …, E − 1.

Differs from the paper: the mean over clients after each pass, with which momentum starts anew.

Guarantee: none; empirically the gap to retraining closes at the cost of fine-tuning. Needs: the remaining
clients online. At γ = 0 it is `finetune`, to the bit. Cost: a round per epoch.
"""

from unlearning.central.l1_sparse import L1SparseSettings, l1_sparse, penalty_weights
from unlearning.methods.base import ClientAnswer, ClientTask, ForgetJob, Method, Needs, Outcome
from unlearning.methods.federated import (
    FederatedWork,
    absence_notes,
    keeping,
    never_took_part,
    received_model,
    settings_in,
    told,
    trained_answer,
)
from unlearning.settings import method_settings

ACTION = "train.l1_sparse"


def l1_sparse_client(task: ClientTask) -> ClientAnswer:
    """Run the client half: one pass over the retained data under the round's penalty."""
    settings = settings_in(L1SparseSettings, task.config)
    model = l1_sparse(received_model(task), task.retain, settings, task.generator)
    return trained_answer(model, len(task.retain))


def passes(settings: L1SparseSettings) -> list[L1SparseSettings]:
    """Return the settings of each round: one pass at the round's γ_e."""
    return [
        settings.model_copy(update={"epochs": 1, "gamma": gamma})
        for gamma in penalty_weights(settings.gamma, settings.epochs)
    ]


def l1_sparsed(job: ForgetJob) -> Outcome:
    """Return the model after fine-tuning rounds under the fading penalty."""
    if (unchanged := never_took_part(job)) is not None:
        return unchanged
    settings = method_settings(L1SparseSettings, job.settings, job.run.train)
    work = FederatedWork(job, settings.epochs)
    flat = work.act(job.run.final, ACTION, [told(each) for each in passes(settings)], keeping(job))
    details = {"rounds": settings.epochs, "gamma": settings.gamma}
    return Outcome(flat, [*absence_notes(job), *work.notes], details)


METHOD = Method(
    name="l1-sparse",
    summary="train on without the forgotten data under an L1 penalty that fades out",
    guarantee="none; a sparser model empirically comes closer to retraining than fine-tuning alone",
    cost="a round of the remaining clients per epoch",
    serves=frozenset({"client", "class", "sample"}),
    refusal="",
    needs=lambda settings: Needs(remaining=True),
    run=l1_sparsed,
    actions={ACTION: l1_sparse_client},
)

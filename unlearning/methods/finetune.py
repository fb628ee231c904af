"""Fine-tuning (FT): the clients train on what stays, and what was learned from the forgotten data fades.

Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023,
arXiv 2304.04934, section 3, as federated rounds; the central form is `unlearning.central.finetune`:

    θ_{e+1} = Σ_k (n_k / n) SGD(θ_e; D_r,k), one pass over each client's retained data, for e = 0, …, E − 1.

Differs from the paper: the mean over clients after each pass, with which momentum starts anew; one pass of
one client is the central form. Step size and batch size are the run's own unless told otherwise (paper: a
tenth of it, at which a backdoor hardly fades), momentum and weight decay always.

Guarantee: none; what was learned from D_f fades only as far as D_r overwrites it. Needs: the remaining
clients online. At 0 epochs the model comes back unchanged. Cost: a round per epoch.
"""

from torch import Tensor

from unlearning.central.finetune import FinetuneSettings
from unlearning.central.training import train_in_place
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork, Method, Outcome
from unlearning.methods.federated import (
    FederatedWork,
    clients_with_retained,
    local_settings,
    received_model,
    settings_entries,
    settings_in,
    trained_answer,
)
from unlearning.traits.finetune import NAME, TRAITS
from unlearning.traits.rounds import RoundSettings

ACTION = "train.finetune"


def finetune_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half: fine-tune on the retained data as the message says."""
    settings = settings_in(FinetuneSettings, work.config)
    model = train_in_place(received_model(work), work.retain, settings, work.generator, task=work.task)
    return trained_answer(model, len(work.retain))


def finetuned_from(job: ForgetJob, flat: Tensor, own: RoundSettings) -> Outcome:
    """Fine-tune from flat parameters, shape [P]: a round per epoch of the clients with retained data."""
    settings = local_settings(job, own, FinetuneSettings)
    one_pass = settings_entries(settings.model_copy(update={"epochs": 1}))
    work = FederatedWork(job, settings.epochs)
    flat = work.act(flat, ACTION, [one_pass] * settings.epochs, clients_with_retained(job))
    details = {"rounds": settings.epochs, "learning_rate": settings.learning_rate}
    return Outcome(flat, job.absence_notes, details)


def finetuned(job: ForgetJob) -> Outcome:
    """Fine-tune the run's final model."""
    return finetuned_from(job, job.run.final, job.settings.own(NAME, RoundSettings))


METHOD = Method.of(TRAITS, run=finetuned, actions={ACTION: finetune_client})

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

from strategies.server.cohort import Cohort
from unlearning.central.finetune import FinetuneSettings, finetune
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork, Method, Needs, Outcome
from unlearning.methods.federated import (
    FederatedWork,
    RoundSettings,
    absence_notes,
    as_trained,
    clients_with_retained,
    never_took_part,
    received_model,
    settings_entries,
    settings_in,
    trained_answer,
)

NAME = "finetune"
ACTION = "train.finetune"


def finetune_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half: fine-tune on the retained data as the message says."""
    settings = settings_in(FinetuneSettings, work.config)
    model = finetune(received_model(work), work.retain, settings, work.generator, task=work.task)
    return trained_answer(model, len(work.retain))


def finetuning_rounds(
    work: FederatedWork, flat: Tensor, settings: FinetuneSettings, cohort: Cohort
) -> Tensor:
    """Return the model after a round of one local pass per epoch, shape [P].

    Parameters
    ----------
    work
        The job's rounds.
    flat
        The model before, shape [P].
    settings
        Epochs and optimiser.
    cohort
        Clients that have retained examples.
    """
    one_pass = settings_entries(settings.model_copy(update={"epochs": 1}))
    return work.act(flat, ACTION, [one_pass] * settings.epochs, cohort)


def finetuned(job: ForgetJob) -> Outcome:
    """Return the model after fine-tuning rounds of the clients that have retained data."""
    if (unchanged := never_took_part(job)) is not None:
        return unchanged
    settings = as_trained(job, job.settings.own(NAME, RoundSettings), FinetuneSettings)
    work = FederatedWork(job, settings.epochs)
    flat = finetuning_rounds(work, job.run.final, settings, clients_with_retained(job))
    return Outcome(flat, absence_notes(job), {"rounds": settings.epochs})


METHOD = Method(
    name=NAME,
    summary="train on without the forgotten data and let it fade",
    guarantee="none: what was learned from the forgotten data fades only as far as the rest overwrites it",
    source="Jia et al., NeurIPS 2023, arXiv 2304.04934",
    cost="a round of the remaining clients per epoch",
    serves=frozenset({"client", "class", "sample"}),
    refusal="",
    needs=lambda settings: Needs(remaining=True),
    run=finetuned,
    settings=RoundSettings,
    actions={ACTION: finetune_client},
)

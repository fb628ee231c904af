"""SalUn: wrong labels of what is forgotten, learned by the weights alone that depend on it most.

Fan, Liu, Zhang, Wong, Wei, Liu, "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency",
ICLR 2024, arXiv 2310.12508, sections 4 and 5, over a federation; the central form is
`unlearning.central.salun`:

    m = 1( |(1/n_f) Σ_k Σ_{D_f,k} ∇ℓ(θo)| ≥ γ ),   θu = m ⊙ (θo + Δθ) + (1 − m) ⊙ θo.

Clients that hold D_f send the sum of their gradients, so m is that of the same examples in one place. Δθ
comes from rounds as in `random_labels`, in which all clients move the salient weights alone; m travels with
each message, in the layout of the model, so that a client that trains a part of the model gets its part of m.

Differs from the paper: the mean over clients after each pass, and wrong labels that are drawn anew in it.
Guarantee: none, as that of random labels. Needs: all clients online, and class labels. With all weights
salient it is random labels. Cost: a visit to those that hold D_f, and a round of all clients per epoch.
"""

import torch
from torch import Tensor

from strategies.core import wire
from strategies.core.errors import LetheError
from unlearning.central.gradients import ExampleSum, Objective, gradient_sum
from unlearning.central.parameters import trainable
from unlearning.central.salun import SalUnSettings, mislabelled_within, salient
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork, Method, Outcome
from unlearning.methods.federated import (
    FederatedWork,
    clients_with_forgotten,
    local_settings,
    received_model,
    settings_in,
    trained_answer,
)
from unlearning.methods.sums import answer_with, ask_for_sums
from unlearning.traits.salun import NAME, TRAITS, SalUnRounds

GRADIENT = "query.salun"
ACTION = "train.salun"
SALIENT = "salient"
"""Record of arrays, server to client: 1 for each weight that may change, else 0."""
FORGET = "forget"


def gradient_client(work: ForgetWork) -> ClientAnswer:
    """Return the sum of the gradients over the forgotten data."""
    return answer_with({FORGET: gradient_sum(received_model(work), work.forget, Objective(work.task))})


def salun_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half: a pass over both sets, with wrong labels, of the salient weights."""
    settings, parts = settings_in(SalUnSettings, work.config), (work.retain, work.forget)
    model, sent = received_model(work), wire.state_of(work.arrays[SALIENT])
    chosen = torch.cat([sent[name].reshape(-1) for name in trainable(model)]).bool()
    found = mislabelled_within(model, parts, chosen, settings, work.generator, task=work.task)
    return trained_answer(found, sum(map(len, parts)))


def saliency(job: ForgetJob, share: float) -> Tensor:
    """Return m of the weights that train, shape [P], bool; LetheError if no client with D_f answers."""
    run, records = job.run, {wire.ARRAYS: wire.FlatRecord(job.run.final, job.run.layout)}
    sums = ask_for_sums(clients_with_forgotten(job), GRADIENT, job.spec, records, {FORGET: run.num_trained})
    total = ExampleSum.join(each[FORGET] for each in sums.values()) if sums else None
    if total is None or not total.count:
        raise LetheError(f"{NAME}: no client answered usefully that holds what is to be forgotten")
    return salient(total.mean, share, None if run.mask is None else run.mask[run.trained].bool())


def saliently_mislabelled(job: ForgetJob) -> Outcome:
    """Return the model after rounds with wrong labels that move the salient weights alone."""
    run, own = job.run, job.settings.own(NAME, SalUnRounds)
    settings = local_settings(job, own, SalUnSettings, salient_share=own.salient_share)
    details = {"rounds": settings.epochs, "learning_rate": settings.learning_rate}
    if not settings.epochs:
        return Outcome(run.final.clone(), job.absence_notes, details)
    chosen = run.spread(saliency(job, settings.salient_share))
    records = {SALIENT: wire.FlatRecord(chosen.float(), run.layout)}
    flat = FederatedWork(job, settings.epochs, records).passes(ACTION, settings)
    details["salient"] = int(chosen.sum())
    return Outcome(torch.where(chosen, flat, run.final), job.absence_notes, details)


METHOD = Method.of(
    TRAITS, run=saliently_mislabelled, actions={GRADIENT: gradient_client, ACTION: salun_client}
)

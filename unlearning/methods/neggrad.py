"""NegGrad+: all clients descend on what stays and ascend on what is forgotten, at once.

Kurmanji, Triantafillou, Hayes, Triantafillou, "Towards Unbounded Machine Unlearning", NeurIPS 2023, arXiv
2302.09880, section 4.1, as federated rounds; the central form is `unlearning.central.neggrad`:

    L(θ) = β · (1/n_r) Σ_{D_r} ℓ − (1 − β) · (1/n_f) Σ_{D_f} ℓ = Σ_k (n_k / n) L_k(θ),
    L_k(θ) = (1/n_k) [ a Σ_{D_r,k} ℓ − b Σ_{D_f,k} ℓ ],   a = β n / n_r,   b = (1 − β) n / n_f.

Clients first say how many examples of each set they hold. Then each round is one pass of SGD on L_k by every
client, averaged by n_k, so that the mean of the objectives is L whoever holds what: a client that leaves
only ascends, one of the others only descends, and with a class or examples a client may do both.

Differs from the paper: the mean over clients after each pass, with which momentum starts anew; see also the
central form. Guarantee: none; ascent has no end of its own. Needs: all clients online. At β = 1 the clients'
forgotten data add nothing to the loss. Cost: a visit to every client, and a round per epoch.
"""

import torch

from strategies.core.errors import LetheError
from unlearning.central.gradients import ExampleSum
from unlearning.central.neggrad import NegGradSettings, example_weights, weighted_descent
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork, Method, Outcome
from unlearning.methods.federated import (
    FederatedWork,
    clients_asked,
    local_settings,
    received_model,
    settings_in,
    trained_answer,
)
from unlearning.methods.sums import answer_with, ask_for_sums
from unlearning.traits.neggrad import NAME, TRAITS, NegGradRounds

ACTION = "train.neggrad"
COUNTS = "query.neggrad_counts"
RETAINED, FORGOTTEN = "retained-weight", "forgotten-weight"
"""float, server to client. a and −b, what an example of each set weighs."""
FORGET, RETAIN = "forget", "retain"


def counts_client(work: ForgetWork) -> ClientAnswer:
    """Return how many examples of each set the client holds."""
    nothing = torch.zeros(0, dtype=torch.float64)
    return answer_with(
        {FORGET: ExampleSum(nothing, len(work.forget)), RETAIN: ExampleSum(nothing, len(work.retain))}
    )


def neggrad_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half: one pass over both sets with the weights that the message says."""
    settings, parts = settings_in(NegGradSettings, work.config), (work.retain, work.forget)
    weights = float(work.config[RETAINED]), float(work.config[FORGOTTEN])
    model = weighted_descent(received_model(work), parts, weights, settings, work.generator, task=work.task)
    return trained_answer(model, sum(map(len, parts)))


def counted(job: ForgetJob) -> tuple[int, int]:
    """Return n_r and n_f over the clients that answer; LetheError if one of them is 0."""
    sums = ask_for_sums(clients_asked(job), COUNTS, job.spec, {}, {RETAIN: 0, FORGET: 0})
    retained, forgotten = (sum(each[name].count for each in sums.values()) for name in (RETAIN, FORGET))
    if not (retained and forgotten):
        raise LetheError(f"{NAME}: no client answered usefully that holds what stays, or what is forgotten")
    return retained, forgotten


def descended(job: ForgetJob) -> Outcome:
    """Return the model after rounds of descent and ascent at once."""
    own = job.settings.own(NAME, NegGradRounds)
    settings = local_settings(job, own, NegGradSettings, beta=own.beta)
    details = {"rounds": settings.epochs, "learning_rate": settings.learning_rate}
    if not settings.epochs:
        return Outcome(job.run.final.clone(), job.absence_notes, details)
    weights = example_weights(settings.beta, *counted(job))
    said = {RETAINED: weights[0], FORGOTTEN: weights[1]}
    flat = FederatedWork(job, settings.epochs).passes(ACTION, settings, said)
    return Outcome(flat, job.absence_notes, details)


METHOD = Method.of(TRAITS, run=descended, actions={ACTION: neggrad_client, COUNTS: counts_client})

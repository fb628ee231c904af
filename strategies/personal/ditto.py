"""Ditto: beside the model for all, a personal model for every client that is held near it.

Li, Hu, Beirami, Smith, "Ditto: Fair and Robust Federated Learning Through Personalization", ICML 2021, arXiv
2012.04221, Algorithm 1. The global model is FedAvg's. In each of its rounds, client k also takes local steps
on its personal objective

    min over v_k of F_k(v_k) + (λ/2) ‖v_k − w_t‖²,    v_k ← v_k − η (∇F_k(v_k) + λ (v_k − w_t))

with w_t as the round sent it. λ = 0 is local training of v_k, to the bit; a large λ holds v_k at w_t.

Differs from the paper: v_k begins as the first model that the client is sent, and takes as many steps, with
the same optimiser, as the global model does locally. v_k never leaves the client: it lies in its state as one
float32 vector, without the optimiser's moments, one per lineage.
"""

import copy

from torch import nn

from strategies import fedavg
from strategies.algorithm import Algorithm
from strategies.client.own_models import ClientState
from strategies.client.training import ClientJob, LocalResult, local_train, near
from strategies.core.seeds import torch_generator
from strategies.personal import measuring
from strategies.personal.settings import PersonalSettings

KIND = "ditto"
"""What the names of the records of its models in a client's state begin with."""


def train_client(job: ClientJob) -> LocalResult:
    """Run the client half: FedAvg's, and the steps of the personal model, which stays here."""
    own = copy.deepcopy(job.model)
    weight = job.strategy.own(PersonalSettings).ditto_lambda
    pull = near(own, weight)
    state = ClientState(job.state, job.lineage, KIND)
    state.read_model(own)
    result = fedavg.train_client(job)
    local_train(
        own,
        job.examples,
        job.train,
        torch_generator(job.generator.initial_seed(), "ditto"),
        rates=job.rates(),
        adjust=pull.adjustment,
        task=job.task,
    )
    state.write_model(own)
    return result


def personalise(job: ClientJob) -> nn.Module:
    """Return the client's personal model; the job's model where the client has none yet."""
    ClientState(job.state, job.lineage, KIND).read_model(job.model)
    return job.model


ALGORITHM = Algorithm(
    "FedAvg, and a personal model for every client that is held near the global one",
    train_client,
    lambda side: measuring.MeasuredStrategy(fedavg.FedAvg()),
    personalise=personalise,
    returns=measuring.REPORTS,
    kept=KIND,
)

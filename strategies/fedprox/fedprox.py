"""FedProx: federated averaging with a proximal term, tolerant of partial local work.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous Networks", MLSys 2020,
arXiv 1812.06127, equation 2: each client approximately minimises

    h_k(w; w_t) = F_k(w) + (μ/2) ‖w − w_t‖²

over all trainable parameters, and may do less local work than the others (a γ_k-inexact solution). The server
averages as FedAvg does, whatever work was done. μ = 0 with full work is FedAvg, to the bit.

The gradient of the proximal term, μ (w − w_t), is added to the loss gradient directly: the same update as
differentiating the written-out objective, without a second graph.
"""

from collections.abc import Mapping
from math import ceil

from strategies.algorithm import Algorithm
from strategies.client.training import ClientJob, LocalTraining, StepState, near, planned_steps
from strategies.fedavg import FedAvg
from strategies.fedprox.settings import FedProxSettings


def steps_for(client_id: str, full_steps: int, shares: Mapping[str, float]) -> int:
    """Return how many steps a client takes: its share of the full work, at least one."""
    return max(1, ceil(shares.get(client_id, 1.0) * full_steps))


def prepare(job: ClientJob) -> StepState:
    """Return the proximal term, and the client's share of the work."""
    settings = job.strategy.own(FedProxSettings)
    full = planned_steps(len(job.examples), job.train)
    return near(job.model, settings.mu, steps_for(job.client_id, full, settings.work_shares))


train_client = LocalTraining(prepare)
"""The client half: local training with the proximal term."""


ALGORITHM = Algorithm(
    "FedAvg with a proximal term, accepts partial local work",
    train_client,
    lambda side: FedAvg(),
    named_clients=lambda settings: {"strategy.work": settings.own(FedProxSettings).work_shares},
)

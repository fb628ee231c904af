"""FedBuff: a server step for every K updates that arrive, from any clients and however late.

Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek, Huba, "Federated Learning with Buffered Asynchronous
Aggregation", AISTATS 2022, arXiv 2106.06639, Algorithm 1. With δ_k = x_k − x_τ, what the client changed in
the model of step τ that it was sent,

    x ← x + η (1/K) Σ_k s(t − τ_k) δ_k,    s(d) = (1 + d)^−½

Differs from the paper: updates weigh their number of examples, as in FedAvg (with equal numbers it is the
paper's mean), and nobody is asked twice for the same version of the model, so a buffer holds at most one
update per client. Where fewer than K can answer, a step is made of those. With K = the number of clients,
all of which train at once, and η = 1 it is FedAvg, to the bit.
"""

from functools import partial

from strategies.algorithm import Algorithm
from strategies.asynchronous.average import StaleAverage
from strategies.asynchronous.settings import AsyncSettings
from strategies.asynchronous.staleness import staleness_weight
from strategies.fedavg import train_client


def build(settings: AsyncSettings) -> StaleAverage:
    """Return the server half."""
    return StaleAverage(partial(staleness_weight, settings=settings), settings.server_learning_rate)


ALGORITHM = Algorithm(
    "a step for every K updates that arrive, in which late ones count less",
    train_client,
    lambda side: build(side.settings.own(AsyncSettings)),
)

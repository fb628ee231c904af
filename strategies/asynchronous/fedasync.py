"""FedAsync: every client's model is mixed into the global one as soon as it arrives.

Xie, Koyejo, Gupta, "Asynchronous Federated Optimization", OPT 2020, arXiv 1903.03934, Algorithm 1. The model
x_k of a client, trained from the model of step τ, arrives for step t:

    x_t = (1 − α_t) x_{t−1} + α_t x_k = x_{t−1} + α_t (x_k − x_{t−1}),    α_t = α · s(t − τ)

What is averaged, and logged, is so x_k − x_{t−1} with the weight α_t: not what the client changed, but how it
differs from the model of now. Differs from the paper: local training is the run's own (the paper adds a
proximal term), and updates beyond ``max-staleness`` are dropped. With one client and α = 1 it is FedAvg, to
the bit.
"""

from functools import partial

from strategies.algorithm import Algorithm
from strategies.asynchronous.average import StaleAverage
from strategies.asynchronous.settings import AsyncSettings
from strategies.asynchronous.staleness import staleness_weight
from strategies.fedavg import train_client


def build(settings: AsyncSettings) -> StaleAverage:
    """Return the server half."""
    return StaleAverage(partial(staleness_weight, settings=settings), settings.mixing)


ALGORITHM = Algorithm(
    "each client's model is mixed into the global one as soon as it arrives",
    train_client,
    lambda side: build(side.settings.own(AsyncSettings)),
)

"""FedAvgM: momentum on the server (Hsu et al., arXiv 1909.06335); see `strategies.fedopt.fedopt`."""

from strategies.algorithm import Algorithm
from strategies.fedavg import train_client
from strategies.fedopt.fedopt import FedOpt, momentum_step
from strategies.fedopt.settings import FedOptSettings


def build(settings: FedOptSettings) -> FedOpt:
    """Return the server half."""
    return FedOpt(settings, momentum_step, averages=settings.server_momentum == 0)


ALGORITHM = Algorithm(
    "the server keeps a momentum over the rounds",
    train_client,
    lambda side: build(side.settings.own(FedOptSettings)),
)

"""FedAdam: Adam on the server (Reddi et al., arXiv 2003.00295); see `strategies.fedopt.fedopt`."""

from functools import partial

from strategies.algorithm import Algorithm
from strategies.fedavg import train_client
from strategies.fedopt.fedopt import FedOpt, adam, adaptive_step
from strategies.fedopt.settings import FedOptSettings


def build(settings: FedOptSettings) -> FedOpt:
    """Return the server half."""
    return FedOpt(settings, partial(adaptive_step, adam))


ALGORITHM = Algorithm(
    "the server steps by the clients' mean update as Adam does",
    train_client,
    lambda side: build(side.settings.own(FedOptSettings)),
)

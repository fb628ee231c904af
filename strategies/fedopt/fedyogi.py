"""FedYogi: Yogi on the server (Reddi et al., arXiv 2003.00295); see `strategies.fedopt.fedopt`."""

from functools import partial

from strategies.algorithm import Algorithm
from strategies.fedavg import train_client
from strategies.fedopt.fedopt import FedOpt, adaptive_step, yogi
from strategies.fedopt.settings import FedOptSettings


def build(settings: FedOptSettings) -> FedOpt:
    """Return the server half."""
    return FedOpt(settings, partial(adaptive_step, yogi))


ALGORITHM = Algorithm(
    "the server steps as Adam does, and forgets large updates more slowly",
    train_client,
    lambda side: build(side.settings.own(FedOptSettings)),
)

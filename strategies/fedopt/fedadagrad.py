"""FedAdagrad: Adagrad on the server (Reddi et al., arXiv 2003.00295); see `strategies.fedopt.fedopt`."""

from functools import partial

from strategies.algorithm import Algorithm
from strategies.fedavg import train_client
from strategies.fedopt.fedopt import FedOpt, adagrad, adaptive_step
from strategies.fedopt.settings import FedOptSettings


def build(settings: FedOptSettings) -> FedOpt:
    """Return the server half."""
    return FedOpt(settings, partial(adaptive_step, adagrad))


ALGORITHM = Algorithm(
    "the server divides each entry's step by all that its updates added up to",
    train_client,
    lambda side: build(side.settings.own(FedOptSettings)),
)

"""FedAvgM: momentum on the server (Hsu et al., arXiv 1909.06335); see `strategies.fedopt.fedopt`."""

from strategies.fedopt.fedopt import algorithm, momentum_step

ALGORITHM = algorithm(
    "the server keeps a momentum over the rounds",
    momentum_step,
    averages=lambda settings: settings.server_momentum == 0,
)

"""FedAdagrad: Adagrad on the server (Reddi et al., arXiv 2003.00295); see `strategies.fedopt.fedopt`."""

from functools import partial

from strategies.fedopt.fedopt import adagrad, adaptive_step, algorithm

ALGORITHM = algorithm(
    "the server divides each entry's step by all that its updates added up to",
    partial(adaptive_step, adagrad),
)

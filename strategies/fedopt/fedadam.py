"""FedAdam: Adam on the server (Reddi et al., arXiv 2003.00295); see `strategies.fedopt.fedopt`."""

from functools import partial

from strategies.fedopt.fedopt import adam, adaptive_step, algorithm

ALGORITHM = algorithm(
    "the server steps by the clients' mean update as Adam does", partial(adaptive_step, adam)
)

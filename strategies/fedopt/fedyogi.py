"""FedYogi: Yogi on the server (Reddi et al., arXiv 2003.00295); see `strategies.fedopt.fedopt`."""

from functools import partial

from strategies.fedopt.fedopt import adaptive_step, algorithm, yogi

ALGORITHM = algorithm(
    "the server steps as Adam does, and forgets large updates more slowly", partial(adaptive_step, yogi)
)

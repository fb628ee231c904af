"""A simulated clock: how long each client would take, without waiting for it.

Real federations are heavy-tailed: most clients are about as fast, a few far slower. A client's speed is drawn
once, from seed and client-id; how long its round takes is its seconds per example times its examples.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

from strategies.core.seeds import numpy_generator

_SECONDS_PER_EXAMPLE = 0.01
_REMEMBERED = 1 << 17
"""Clients whose speeds are kept, of about 200 bytes each."""


@dataclass(frozen=True)
class Clock:
    """Speeds of clients.

    Parameters
    ----------
    speeds
        ``equal``; ``lognormal:<sigma>``, a factor exp(sigma·z) on the seconds per example, z standard normal;
        ``pareto:<shape>``, a factor of at least 1 that is above f with probability f^-shape.
    """

    speeds: str
    seed: int

    def factor(self, client_id: str) -> float:
        """Return a client's seconds per example, relative to a typical client."""
        return _factor(self.speeds, self.seed, client_id)

    def seconds(self, client_id: str, num_examples: int) -> float:
        """Return how long a client's round takes."""
        return _SECONDS_PER_EXAMPLE * self.factor(client_id) * num_examples


@lru_cache(maxsize=_REMEMBERED)
def _factor(speeds: str, seed: int, client_id: str) -> float:
    """Return a client's factor, drawn once: a round asks for that of every connected client."""
    kind, _, parameter = speeds.partition(":")
    generator = numpy_generator(seed, "speed", client_id)
    if kind == "lognormal":
        return math.exp(float(parameter) * float(generator.standard_normal()))
    return 1.0 + float(generator.pareto(float(parameter))) if kind == "pareto" else 1.0

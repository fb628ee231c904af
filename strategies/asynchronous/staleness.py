"""How much a late update counts.

An update that was made from the model of server step τ and arrives for step t has the staleness s = t − τ.
Xie, Koyejo, Gupta, "Asynchronous Federated Optimization", arXiv 1903.03934, section 5.2:

    constant:    1
    polynomial:  (1 + s)^−a                             (a = ½ in FedBuff, arXiv 2106.06639)
    hinge:       1 where s ≤ b, else 1 / (a (s − b) + 1)

A weight is never 0: every client that is counted in a step is in its sum.
"""

import sys

from strategies.asynchronous.settings import AsyncSettings


def staleness_weight(staleness: int, settings: AsyncSettings) -> float:
    """Return the factor on the weight of an update, in (0, 1]; 1 for a fresh one.

    Parameters
    ----------
    staleness
        Server steps that it is behind, at least 0.

    Examples
    --------
    >>> staleness_weight(3, AsyncSettings())
    0.5
    >>> staleness_weight(5, AsyncSettings(staleness="hinge", hinge_slope=3.0, hinge_start=4))
    0.25
    """
    return max(_factor(staleness, settings), sys.float_info.min)


def _factor(staleness: int, settings: AsyncSettings) -> float:
    if settings.staleness == "polynomial":
        return float((1.0 + staleness) ** -settings.staleness_exponent)
    if settings.staleness == "hinge" and staleness > settings.hinge_start:
        return 1.0 / (settings.hinge_slope * (staleness - settings.hinge_start) + 1.0)
    return 1.0

"""Settings of the server-side optimisers, keys of the section ``strategy``."""

from pydantic import Field

from strategies.core.traits import Traits
from strategies.server.settings import ServerRate


class FedOptSettings(ServerRate):
    """What ``fedavgm``, ``fedadagrad``, ``fedadam`` and ``fedyogi`` read.

    Attributes
    ----------
    server_momentum
        ``fedavgm``: β, what is kept of the server's step before, in [0, 1); neutral 0.
    adaptive_learning_rate
        ``fedadagrad``, ``fedadam``, ``fedyogi``: η, how far an entry of the model moves in a round whose mean
        update is as long as those before, about; above 0.
    beta1
        ``fedadagrad``, ``fedadam``, ``fedyogi``: β₁, what is kept of the mean updates before, in [0, 1);
        neutral 0.
    beta2
        ``fedadam``, ``fedyogi``: β₂, what is kept of the squared mean updates before, in [0, 1).
    tau
        ``fedadagrad``, ``fedadam``, ``fedyogi``: τ, added to the length that an entry's update is divided by,
        above 0.
    """

    server_momentum: float = Field(default=0.9, ge=0, lt=1)
    adaptive_learning_rate: float = Field(default=0.01, gt=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.99, ge=0, lt=1)
    tau: float = Field(default=1e-3, gt=0)


def _traits(name: str, *fields: str) -> Traits:
    return Traits(name, FedOptSettings, fields, adds_mean=False)


TRAITS = (
    _traits("fedavgm", "server_learning_rate", "server_momentum"),
    _traits("fedadagrad", "adaptive_learning_rate", "beta1", "tau"),
    _traits("fedadam", "adaptive_learning_rate", "beta1", "beta2", "tau"),
    _traits("fedyogi", "adaptive_learning_rate", "beta1", "beta2", "tau"),
)

"""The keys that methods in federated rounds share."""

from pydantic import Field

from strategies.core.settings import Settings
from unlearning.settings import Positive, Size


class RoundSettings(Settings):
    """Federated rounds of one local pass each.

    Attributes
    ----------
    epochs
        Passes over the retained data, at least 0, one federated round per pass; neutral 0, which trains
        nothing.
    learning_rate
        Step size, above 0; ``auto``: that with which the run's last round began, as its schedule has it.
    batch_size
        Examples per step, at least 1; ``auto``: the run's.
    """

    epochs: int = Field(default=10, ge=0)
    learning_rate: Positive = "auto"
    batch_size: Size = "auto"

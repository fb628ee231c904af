"""Settings of FedDyn, keys of the section ``strategy``."""

from pydantic import Field

from strategies.core.settings import Settings
from strategies.core.traits import Traits


class FedDynSettings(Settings):
    """What ``feddyn`` reads.

    Attributes
    ----------
    dyn_alpha
        Weight α of the dynamic regulariser, above 0.
    """

    dyn_alpha: float = Field(default=0.1, gt=0)


TRAITS = (
    Traits(
        "feddyn",
        FedDynSettings,
        averages=False,
        noised=False,
        adds_mean=False,
        hidden="none",
        helps=("drift",),
    ),
)

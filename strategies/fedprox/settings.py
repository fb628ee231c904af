"""Settings of FedProx, keys of the section ``strategy``."""

from pydantic import Field, field_validator

from strategies.core.settings import Settings, split_shares
from strategies.core.traits import Traits


class FedProxSettings(Settings):
    """What ``fedprox`` reads.

    Attributes
    ----------
    mu
        Weight of (mu/2)‖w − w_t‖², at least 0; neutral 0, which is FedAvg.
    work
        Share of a round's local work that a client does, ``client-id=share`` pairs separated by commas, each
        share in (0, 1]; neutral empty: every client does all of it.
    """

    mu: float = Field(default=0.01, ge=0)
    work: str = ""

    @property
    def work_shares(self) -> dict[str, float]:
        """``work``, parsed: share of the local work by client-id."""
        return split_shares(self.work)

    @field_validator("work")
    @classmethod
    def _work_parses(cls, value: str) -> str:
        split_shares(value)
        return value


TRAITS = (Traits("fedprox", FedProxSettings, helps=("drift",)),)

"""Settings of FedProx, keys of the section ``strategy``."""

from pydantic import Field, field_validator

from strategies.core.settings import Settings, split_list
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
        return _parse_work(self.work)

    @field_validator("work")
    @classmethod
    def _work_parses(cls, value: str) -> str:
        _parse_work(value)
        return value


def _parse_work(text: str) -> dict[str, float]:
    pairs = [entry.rpartition("=") for entry in split_list(text)]
    try:
        shares = {client_id.strip(): float(share) for client_id, _, share in pairs}
    except ValueError:
        raise ValueError("'client-id=share' pairs separated by commas") from None
    if len(shares) < len(pairs) or "" in shares:
        raise ValueError("'client-id=share' pairs, each with a client-id of its own")
    if not all(0 < share <= 1 for share in shares.values()):
        raise ValueError("'client-id=share' pairs with every share in (0, 1]")
    return shares


TRAITS = (Traits("fedprox", FedProxSettings, helps=("drift",)),)

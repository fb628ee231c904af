"""Settings of gradient-pruned aggregation, all of them keys of the section ``strategy``."""

from typing import Literal

from pydantic import Field, field_validator

from strategies.base_settings import Settings, split_list


class PrunedSettings(Settings):
    """What ``pruned-dp`` reads.

    Attributes
    ----------
    keep
        Share of the neurons of every hidden layer that a client trains, in (0, 1]; neutral 1.
    keeps
        Shares of single clients, ``client-id=share`` pairs separated by commas; they come before a node's own
        ``strategy.keep``, and that before ``keep``.
    score
        Which neurons are kept: those with the highest ``fisher`` information or ``magnitude``, the first
        (``ordered``), or others for every client (``random``).
    score_source
        ``fisher``: ``public`` data of the server's, or ``global-model``, how far each parameter of the
        released model has moved from its start.
    refresh
        Rounds from one selection to the next, at least 1.
    """

    keep: float = Field(default=0.5, gt=0, le=1)
    keeps: str = ""
    score: Literal["fisher", "random", "ordered", "magnitude"] = "fisher"
    score_source: str = "public"
    refresh: int = Field(default=5, ge=1)

    @property
    def client_keeps(self) -> dict[str, float]:
        """``keeps``, parsed: share by client-id."""
        return _parse_keeps(self.keeps)

    @field_validator("keeps")
    @classmethod
    def _keeps_parse(cls, value: str) -> str:
        _parse_keeps(value)
        return value

    @field_validator("score_source")
    @classmethod
    def _no_private_scores(cls, value: str) -> str:
        if value == "private":
            raise ValueError(
                "public or global-model: scores of private data are a release of their own, whose cost would "
                "have to be part of ε"
            )
        if value not in {"public", "global-model"}:
            raise ValueError("public or global-model")
        return value


def _parse_keeps(text: str) -> dict[str, float]:
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

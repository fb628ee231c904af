"""Settings of gradient-pruned aggregation, all of them keys of the section ``strategy``."""

from typing import Literal

from pydantic import Field, field_validator

from strategies.core.settings import Settings, split_list


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
        ``fisher``: ``public`` data of the server's; ``global-model``, how far each parameter of the
        released model has moved from its start; or ``private``, the client's own data, with noise, whose cost
        is part of ε (see `strategies.layers.privacy.scoring`).
    score_noise
        ``private``: standard deviation of the noise on the scores in `score_clip`, above 0.
    score_clip
        ``private``: largest Euclidean norm of what one unit contributes to the scores of all neurons, above
        0. Only their order counts, so a small norm, which gives every example the same say, loses little.
    refresh
        Rounds from one selection to the next, at least 1.
    """

    keep: float = Field(default=0.5, gt=0, le=1)
    keeps: str = ""
    score: Literal["fisher", "random", "ordered", "magnitude"] = "fisher"
    score_source: Literal["public", "global-model", "private"] = "public"
    score_noise: float = Field(default=0.0, ge=0)
    score_clip: float = Field(default=0.01, gt=0)
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

"""Settings of gradient-pruned aggregation, all of them keys of the section ``strategy``."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from strategies.core.conditions import lacks_public_data, only_with, refuse_beside, shown
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar, Settings, split_shares
from strategies.core.traits import Traits


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
        return split_shares(self.keeps)

    @field_validator("keeps")
    @classmethod
    def _keeps_parse(cls, value: str) -> str:
        split_shares(value)
        return value


def _check(flat: Mapping[str, Scalar]) -> None:
    if flat["compression.codec"] != "none":
        raise BadInput(
            f"compression.codec: given {shown(flat['compression.codec'])}, but with pruned-dp every client "
            'has another part of the model, of which there are no differences; allowed "none"'
        )
    if flat["privacy.encryption"] != "none":
        _check_same_neurons(flat)
    if _public_need(flat) and lacks_public_data(flat):
        raise BadInput(
            "data.public: given 0, but pruned-dp scores neurons on public data; give some, or "
            'strategy.score-source = "global-model"'
        )
    if flat["strategy.score-source"] == "private":
        _check_private_scores(flat)
    if flat["privacy.unit"] == "client-central" and flat["privacy.client-sampling"] == "poisson":
        raise BadInput(
            'privacy.client-sampling: given "poisson", but pruned-dp divides each entry by the number of '
            'clients asked for it, which Poisson sampling makes random; allowed "fixed"'
        )
    if flat["forget.prune"] != "none":
        raise BadInput(
            f"forget.prune: given {shown(flat['forget.prune'])}, but pruned-dp trains parts of a dense model"
        )


def _public_need(flat: Mapping[str, Scalar]) -> str:
    by_public = flat["strategy.score"] == "fisher" and flat["strategy.score-source"] == "public"
    return 'scores neurons on public data (or strategy.score-source = "global-model")' if by_public else ""


def _check_same_neurons(flat: Mapping[str, Scalar]) -> None:
    """Require that clients train the same neurons if only the mean of their updates is known."""
    same, setting = "all clients must train the same neurons", "privacy.encryption"
    refuse_beside("strategy.score", flat["strategy.score"] == "random", flat, setting, same)
    refuse_beside("strategy.score-source", flat["strategy.score-source"] == "private", flat, setting, same)
    refuse_beside("strategy.keeps", bool(flat["strategy.keeps"]), flat, setting, same)
    changes = flat["strategy.score"] != "ordered" and flat["strategy.refresh"] != 1
    refuse_beside("strategy.refresh", changes, flat, setting, f"{same}: allowed 1")


def _check_private_scores(flat: Mapping[str, Scalar]) -> None:
    if not flat["strategy.score-noise"]:
        raise BadInput(
            'strategy.score-noise: given 0, but strategy.score-source is "private": a private mask without '
            "its cost is refused; allowed a noise multiplier above 0, whose cost becomes part of ε"
        )
    if flat["privacy.unit"] not in {"example", "client-local"}:
        raise BadInput(
            'strategy.score-source: given "private", whose cost the clients\' accountants count, but '
            f'privacy.unit is {shown(flat["privacy.unit"])}; allowed "public" or "global-model", or '
            'privacy.unit = "example" or "client-local"'
        )


TRAITS = (
    Traits(
        "pruned-dp",
        PrunedSettings,
        conditions=(
            only_with("strategy.score-source", "strategy.score", "fisher"),
            only_with("strategy.score-noise strategy.score-clip", "strategy.score-source", "private"),
        ),
        check=_check,
        public_if=_public_need,
        hidden="mean",
        shares_rounds=True,
        protecting=(
            only_with(
                "strategy.score-source strategy.score-noise strategy.score-clip",
                "strategy.score-source",
                "private",
            ),
        ),
    ),
)

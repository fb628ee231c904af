"""Keys, needs and promises of `unlearning.methods.federaser`."""

from pydantic import Field

from strategies.core.settings import Settings
from unlearning.traits.base import Needs, Traits

NAME = "federaser"


class FedEraserSettings(Settings):
    """The replay.

    Attributes
    ----------
    interval
        Δt, rounds of the run from one replayed round to the next, at least 1; neutral 1, which replays every
        round.
    ratio
        r, share of a round's local training that a replayed round takes, in (0, 1]; neutral 1.
    interval_factor
        Whether each calibrated update is taken Δt times, for the rounds that are left out.
    """

    interval: int = Field(default=2, ge=1)
    ratio: float = Field(default=0.5, gt=0, le=1)
    interval_factor: bool = False


TRAITS = Traits(
    name=NAME,
    summary="replay every few rounds without the client, with logged lengths and fresh directions",
    guarantee="approximate: the lengths of the steps are those of the run that contained the client",
    source="Liu et al., IWQoS 2021, arXiv 2012.13891",
    cost="a visit to every remaining client per `forget.federaser.interval` rounds, with a share of its work",
    needs=lambda settings: Needs(log="norms", remaining=True, rebuilds=True, fresh=True),
    serves=frozenset({"client"}),
    refusal="the log holds one update per client and round, whose length is that of all its data",
    settings=FedEraserSettings,
)

"""Keys, needs and promises of `unlearning.methods.redistill`."""

from typing import Literal

from pydantic import Field

from strategies.core.settings import Settings
from unlearning.traits.base import Needs, Traits

NAME = "redistill"


class RedistillSettings(Settings):
    """The replay.

    Attributes
    ----------
    start
        ``transferred``, the models of before the first round, or ``now``, the present ones.
    rounds
        How many of the last kept rounds are replayed, at least 0; neutral 0: all.
    """

    start: Literal["transferred", "now"] = "transferred"
    rounds: int = Field(default=0, ge=0)


TRAITS = Traits(
    name=NAME,
    summary="FedMD: the others digest the logged consensus again, recomputed without the client",
    guarantee="approximate: later answers of the others came from models that had digested the client's",
    source="this project, on arXiv 1910.03581",
    cost="one visit to every remaining client per replayed round, half of the round's messages",
    needs=lambda settings: Needs(log="kept", remaining=True, rebuilds=True, models="client"),
    serves=frozenset({"client"}),
    refusal="the log holds a client's answers, not what each class or example of its data did to them",
    settings=RedistillSettings,
    flat_keys={"redistill-start": "start", "redistill-rounds": "rounds"},
)

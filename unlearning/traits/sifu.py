"""Keys, needs and promises of `unlearning.methods.sifu`."""

from pydantic import Field

from strategies.core.settings import Settings
from unlearning.settings import Count
from unlearning.traits.base import Needs, Traits

NAME = "sifu"


class SifuSettings(Settings):
    """Going back to a round, noise, and training on.

    Attributes
    ----------
    epsilon : float
        ε of the result, above 0.
    delta : float
        δ of the result, in (0, 1).
    noise : float
        σ of the noise on every weight, above 0; the larger, the later the round that is gone back to.
    rounds
        Rounds of training after the noise, at least 0; neutral ``auto``: as many as the run had after the
        round that is gone back to.
    """

    epsilon: float = Field(default=1.0, gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    noise: float = Field(default=0.1, gt=0)
    rounds: Count = "auto"


TRAITS = Traits(
    name=NAME,
    summary="go back to the last round that noise can make like one without the client, then train on",
    guarantee=(
        "certified, for a convex loss: (ε, δ)-indistinguishable from a training without the client that got "
        "the same noise in the same round; nothing is certified of the run's log and models"
    ),
    source="Fraboni et al., AISTATS 2024, arXiv 2211.11656",
    cost="one visit to every remaining client, and the rounds after the one that is kept",
    needs=lambda settings: Needs(log="full", remaining=True, rebuilds=True, fresh=True, convex=True),
    serves=frozenset({"client"}),
    refusal="the log holds one update per client, from which its own part is told",
    settings=SifuSettings,
)

"""Keys, needs and promises of `unlearning.methods.salun`."""

from pydantic import Field

from unlearning.traits.base import Needs, Traits
from unlearning.traits.rounds import RoundSettings

NAME = "salun"


class SalUnRounds(RoundSettings):
    """Random labels on salient weights.

    Attributes
    ----------
    salient_share
        Share of the weights that change, in (0, 1]: those with the largest gradient on the forgotten data;
        neutral 1, which is ``random-labels``.
    """

    salient_share: float = Field(default=0.5, gt=0, le=1)


TRAITS = Traits(
    name=NAME,
    summary="teach wrong labels of the forgotten data to the weights that depend on them most",
    guarantee="none: the model learns something false of the data, which retraining would not teach it",
    source="Fan et al., ICLR 2024, arXiv 2310.12508",
    cost="a visit to those that hold the data, and a round of all clients per epoch",
    needs=lambda settings: Needs(remaining=True, forgotten=True, labels="teaches wrong labels"),
    settings=SalUnRounds,
)

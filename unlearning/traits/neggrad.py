"""Keys, needs and promises of `unlearning.methods.neggrad`."""

from pydantic import Field

from unlearning.traits.base import Needs, Traits
from unlearning.traits.rounds import RoundSettings

NAME = "neggrad"


class NegGradRounds(RoundSettings):
    """Rounds of descent and ascent at once; ``epochs`` are passes over both sets.

    Attributes
    ----------
    beta
        β, the weight of the retained data, in [0, 1]; neutral 1, which leaves the forgotten data out of the
        loss.
    """

    beta: float = Field(default=0.99, ge=0, le=1)


TRAITS = Traits(
    name=NAME,
    summary="train on the retained data and up the loss on the forgotten ones, at once",
    guarantee="none: ascent destroys what the model says about the data, which retraining would not",
    source="Kurmanji et al., NeurIPS 2023, arXiv 2302.09880",
    cost="a visit to every client, and a round of all of them per epoch",
    needs=lambda settings: Needs(remaining=True, forgotten=True),
    settings=NegGradRounds,
)

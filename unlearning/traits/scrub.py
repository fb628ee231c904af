"""Keys, needs and promises of `unlearning.methods.scrub`."""

from pydantic import Field

from unlearning.traits.base import Needs, Traits
from unlearning.traits.rounds import RoundSettings

NAME = "scrub"


class ScrubRounds(RoundSettings):
    """Max- and min-epochs; ``epochs`` counts the min-epochs.

    Attributes
    ----------
    max_epochs
        How many of the epochs begin with a round of ascent on the forgotten data, at least 0; neutral 0, and
        next to it 1, as the first of them begins at the old model, from which it can see no way.
    teacher_weight
        α, the weight of the old model's answers on the retained data, at least 0.
    label_weight
        γ, the weight of the retained data's own targets, at least 0.
    """

    max_epochs: int = Field(default=2, ge=0)
    teacher_weight: float = Field(default=0.5, ge=0)
    label_weight: float = Field(default=1.0, ge=0)


TRAITS = Traits(
    name=NAME,
    summary="move away from the old model's answers on the forgotten data, back to them on the retained",
    guarantee="none: the answers on the forgotten data become others, not those of a retrained model",
    source="Kurmanji et al., NeurIPS 2023, arXiv 2302.09880",
    cost="a round of the remaining clients per epoch, and some of those that hold the data",
    needs=lambda settings: Needs(remaining=True, forgotten=True),
    settings=ScrubRounds,
)

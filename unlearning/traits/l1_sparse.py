"""Keys, needs and promises of `unlearning.methods.l1_sparse`."""

from unlearning.settings import AtLeastZero
from unlearning.traits.base import Needs, Traits
from unlearning.traits.rounds import RoundSettings

NAME = "l1-sparse"


class L1RoundSettings(RoundSettings):
    """Rounds under the penalty.

    Attributes
    ----------
    gamma
        Weight of the L1 penalty in the first pass, at least 0; neutral 0, which is fine-tuning; ``auto``: by
        learning rate and amount of data.
    """

    gamma: AtLeastZero = "auto"


TRAITS = Traits(
    name=NAME,
    summary="train on without the forgotten data under an L1 penalty that fades out",
    guarantee="none; a sparser model empirically comes closer to retraining than fine-tuning alone",
    source="Jia et al., NeurIPS 2023, arXiv 2304.04934",
    cost="a round of the remaining clients per epoch",
    needs=lambda settings: Needs(remaining=True),
    settings=L1RoundSettings,
)

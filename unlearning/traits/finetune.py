"""Keys, needs and promises of `unlearning.methods.finetune`."""

from unlearning.traits.base import Needs, Traits
from unlearning.traits.rounds import RoundSettings

NAME = "finetune"


TRAITS = Traits(
    name=NAME,
    summary="train on without the forgotten data and let it fade",
    guarantee="none: what was learned from the forgotten data fades only as far as the rest overwrites it",
    source="Jia et al., NeurIPS 2023, arXiv 2304.04934",
    cost="a round of the remaining clients per epoch",
    needs=lambda settings: Needs(remaining=True),
    settings=RoundSettings,
)

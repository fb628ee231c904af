"""Keys, needs and promises of `unlearning.methods.random_labels`."""

from unlearning.traits.base import Needs, Traits
from unlearning.traits.rounds import RoundSettings

NAME = "random-labels"

TRAITS = Traits(
    name=NAME,
    summary="train on the forgotten data with wrong labels, beside the retained with their own",
    guarantee="none: the model learns something false of the data, which retraining would not teach it",
    source="Golatkar et al., CVPR 2020; Graves et al., AAAI 2021, arXiv 2010.10981",
    cost="a round of all clients per epoch",
    needs=lambda settings: Needs(remaining=True, forgotten=True, labels="teaches wrong labels"),
    settings=RoundSettings,
)

"""Keys, needs and promises of `unlearning.methods.reprune`."""

from unlearning.traits.base import Needs, Traits

NAME = "reprune"


TRAITS = Traits(
    name=NAME,
    summary="prune anew and train again, both without the forgotten data",
    guarantee="exact",
    source="the reference for pruned runs",
    cost="all rounds of the run, as often as it was trained to be pruned, and once more",
    needs=lambda settings: Needs(remaining=True),
    prunes_anew=True,
)

"""Keys, needs and promises of `unlearning.methods.retrain`."""

from unlearning.traits.base import Needs, Traits

NAME = "retrain"


TRAITS = Traits(
    name=NAME,
    summary="train again without the forgotten data",
    guarantee="exact",
    source="the reference",
    cost="all rounds of the run, every remaining client in each",
    needs=lambda settings: Needs(remaining=True, models="any"),
    trains_as_the_run=True,
    is_reference=True,
)

"""Keys, needs and promises of `unlearning.methods.fisher`."""

from unlearning.central.settings import FisherSettings
from unlearning.traits.base import Needs, Traits

NAME = "fisher"


TRAITS = Traits(
    name=NAME,
    summary="add noise to the weights, the more the less the retained data depend on them",
    guarantee="none: the noise hides the forgotten data only as far as the loss is quadratic",
    source="Jia et al., NeurIPS 2023, arXiv 2304.04934",
    cost="one visit to every client that keeps data, of a backward pass per example and class",
    needs=lambda settings: Needs(remaining=True),
    settings=FisherSettings,
    flat_keys={"fisher-alpha": "alpha", "fisher-max-inverse": "max-inverse"},
)

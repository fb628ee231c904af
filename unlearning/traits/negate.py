"""Keys, needs and promises of `unlearning.methods.negate`."""

from pydantic import field_validator

from strategies.core.settings import checked_list, whole_number_as_text
from unlearning.traits.base import Needs, Traits
from unlearning.traits.rounds import RoundSettings

NAME = "negate"


class NegateSettings(RoundSettings):
    """Negation, and the rounds that follow.

    Attributes
    ----------
    layers
        Names of the layers to negate, separated by commas; empty: the first layer with weights.
    """

    layers: str = ""

    _number_is_text = field_validator("layers", mode="before")(whole_number_as_text)
    _layers_parse = field_validator("layers")(checked_list)


TRAITS = Traits(
    name=NAME,
    summary="negate the first layer, then train on without the forgotten data",
    guarantee="none: what is forgotten is what training does not restore",
    source="Khalil et al., CVPR 2025, arXiv 2503.05657",
    cost="a round of the remaining clients per epoch",
    needs=lambda settings: Needs(remaining=True),
    settings=NegateSettings,
    flat_keys={"negate-layers": "layers"},
)

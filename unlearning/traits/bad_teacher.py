"""Keys, needs and promises of `unlearning.methods.bad_teacher`."""

from unlearning.traits.base import Needs, Traits
from unlearning.traits.rounds import RoundSettings

NAME = "bad-teacher"

TRAITS = Traits(
    name=NAME,
    summary="learn from the old model on the retained data, from a random one on the forgotten",
    guarantee="none: on the data the model comes to know nothing, while a retrained one generalises",
    source="Chundawat et al., AAAI 2023, arXiv 2205.08096",
    cost="a round of all clients per epoch, with three models on the way to each",
    needs=lambda settings: Needs(remaining=True, forgotten=True),
    settings=RoundSettings,
)

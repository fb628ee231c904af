"""Keys, needs and promises of `unlearning.methods.fedosd`."""

from pydantic import Field

from strategies.core.settings import Settings
from unlearning.settings import Count, ForgetSettings
from unlearning.traits.base import Needs, Traits

NAME = "fedosd"


class FedOsdSettings(Settings):
    """FedOSD.

    Attributes
    ----------
    unlearning_rounds
        Steps along the orthogonal direction, at least 0, a visit to every client each; neutral 0; ``auto``:
        until the loss on the forgotten data is that on the server's public data, and of a class until at most
        1 % is right.
    step_share
        Where it is ``auto``: length of a step as a share of the norm of the parameters, above 0.
    max_steps
        Where it is ``auto``: steps at most, at least 0.
    learning_rate
        Of a number of steps: length of a step, in gradients, above 0.
    recovery_rounds
        Rounds of the remaining clients afterwards, at least 0; neutral 0.
    """

    unlearning_rounds: Count = "auto"
    step_share: float = Field(default=0.004, gt=0)
    max_steps: int = Field(default=100, ge=0)
    learning_rate: float = Field(default=0.3, gt=0)
    recovery_rounds: int = Field(default=3, ge=0)


def needs(settings: ForgetSettings) -> Needs:
    """Return that all clients must be online."""
    asked = settings.own(NAME, FedOsdSettings).unlearning_rounds == "auto"
    return Needs(
        forgotten=True,
        remaining=True,
        labels="descends on a loss of the probability of the forgotten label",
        held_out="unlearning-rounds" if asked else "",
    )


TRAITS = Traits(
    name=NAME,
    summary="unlearn along a direction that leaves the others' losses alone, then recover without going back",
    guarantee="none: to first order the others' losses stay as they are and recovery does not go back",
    source="Pan et al., AAAI 2025, arXiv 2412.20200",
    cost="a visit to every client per unlearning round, and the recovery rounds",
    needs=needs,
    settings=FedOsdSettings,
)

"""Keys, needs and promises of `unlearning.methods.ascent`."""

from pydantic import Field

from strategies.core.settings import Settings
from unlearning.settings import Count, ForgetSettings, Positive
from unlearning.traits.base import Needs, Traits

NAME = "ascent"


class AscentRounds(Settings):
    """Ascent; where a value is ``auto``, it depends on what is forgotten.

    Attributes
    ----------
    epochs
        Passes over the forgotten data, at least 0; neutral 0; ``auto``: 20 for classes, else 5.
    learning_rate
        Step size, above 0; ``auto``: 0.003 for clients, else 0.02.
    batch_size
        Examples per step, at least 1.
    clip_norm
        Of a client: largest norm of a batch's gradient, above 0.
    stop_accuracy
        It ends once the accuracy on the forgotten data is below this, in percent; neutral 0, which never
        stops.
    recovery_rounds
        Rounds of the remaining clients afterwards, at least 0; neutral 0; ``auto``: 3 for clients, else 0.
    """

    epochs: Count = "auto"
    learning_rate: Positive = "auto"
    batch_size: int = Field(default=32, ge=1)
    clip_norm: float = Field(default=5.0, gt=0)
    stop_accuracy: float = Field(default=12.0, ge=0, le=100)
    recovery_rounds: Count = "auto"


def needs(settings: ForgetSettings) -> Needs:
    """Return that clients with forgotten data must be online, and the others for recovery."""
    return Needs(forgotten=True, remaining=settings.own(NAME, AscentRounds).recovery_rounds != 0)


TRAITS = Traits(
    name=NAME,
    summary="move up the loss on the forgotten data, near a model without it, then recover",
    guarantee="none: ascent destroys what the model says about the data, which retraining would not",
    source="Jia et al., NeurIPS 2023; Halimi et al., arXiv 2207.05521",
    cost="one or two visits to a leaving client, or a round per epoch of those that hold the data; recovery",
    needs=needs,
    settings=AscentRounds,
)

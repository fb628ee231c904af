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
        Passes over the forgotten data, at least 0; neutral 0; ``auto``: steps of one length until the loss on
        them is that on the server's public data, and of a class until at most 1 % is right.
    step_share
        Of such a step: its length as a share of the norm of the parameters, above 0.
    max_steps
        Such steps at most, at least 0.
    learning_rate
        Of passes: step size, above 0; ``auto``: 0.003 for clients, else 0.02.
    batch_size
        Of passes: examples per step, at least 1.
    clip_norm
        Of a client's passes: largest norm of a batch's gradient, above 0.
    stop_accuracy
        Passes end once the accuracy on the forgotten data is below this, in percent; neutral 0, which never
        stops.
    recovery_rounds
        Rounds of the remaining clients afterwards, at least 0; neutral 0; ``auto``: 3 for clients, else 0.
    """

    epochs: Count = "auto"
    step_share: float = Field(default=0.004, gt=0)
    max_steps: int = Field(default=100, ge=0)
    learning_rate: Positive = "auto"
    batch_size: int = Field(default=32, ge=1)
    clip_norm: float = Field(default=5.0, gt=0)
    stop_accuracy: float = Field(default=12.0, ge=0, le=100)
    recovery_rounds: Count = "auto"


def needs(settings: ForgetSettings) -> Needs:
    """Return that clients with forgotten data must be online, and the others for recovery."""
    own = settings.own(NAME, AscentRounds)
    held_out = "epochs" if own.epochs == "auto" else ""
    return Needs(forgotten=True, remaining=own.recovery_rounds != 0, held_out=held_out)


TRAITS = Traits(
    name=NAME,
    summary="move up the loss on the forgotten data, near a model without it, then recover",
    guarantee="none: ascent destroys what the model says about the data, which retraining would not",
    source="Jia et al., NeurIPS 2023; Halimi et al., arXiv 2207.05521",
    cost="two or three visits to a leaving client, or one per step to all that hold the data; recovery",
    needs=needs,
    settings=AscentRounds,
)

"""Keys, needs and promises of `unlearning.methods.fast_distill`."""

from typing import Annotated

from pydantic import Field

from strategies.client.settings import DistillationSettings
from unlearning.settings import Auto
from unlearning.traits.base import Needs, Traits

NAME = "fast-distill"


class FastDistillSettings(DistillationSettings):
    """Distillation into the last layers.

    Attributes
    ----------
    epochs
        Passes of the head, at least 0; neutral 0, which leaves out the pass of the whole model as well.
    learning_rate
        Step size of the head's first pass, above 0.
    skew_alpha
        Share of a client's past influence that the others undo in a round, in [0, 1]; neutral 0: the start is
        plain subtraction; ``auto``: 0.3 divided by the rounds of the run.
    skew_theta
        Share of the estimated influence that is subtracted at the start, at least 0; neutral 1, all of it.
    """

    epochs: int = Field(default=30, ge=0)
    learning_rate: float = Field(default=0.02, gt=0)
    skew_alpha: Annotated[float, Field(ge=0, le=1)] | Auto = "auto"
    skew_theta: float = Field(default=1.0, ge=0)

    @property
    def whole_model(self) -> "FastDistillSettings":
        """The settings for the pass of the whole model."""
        changed = {"epochs": min(1, self.epochs), "learning_rate": self.learning_rate / 2}
        return self.model_copy(update=changed)


TRAITS = Traits(
    name=NAME,
    summary="subtract with a cautious skew estimate, then distil the old model, mostly into the last layers",
    guarantee="approximate: the teacher has seen the client, and its answers may carry the client over",
    source="the papers of distill and fast-fedul, combined here",
    cost="no round, no client visit",
    needs=lambda settings: Needs(log="full", public=True, fresh=True),
    serves=frozenset({"client"}),
    refusal="it starts from a subtraction, and the log holds one update per client, not per class or example",
    settings=FastDistillSettings,
)

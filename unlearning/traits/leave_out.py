"""Keys, needs and promises of `unlearning.methods.leave_out`."""

from typing import Annotated

from pydantic import Field

from unlearning.settings import Auto
from unlearning.traits.base import Needs, Traits
from unlearning.traits.rounds import RoundSettings

NAME = "leave-out"


class LeaveOutSettings(RoundSettings):
    """Leaving a client's deviation from the others out.

    Attributes
    ----------
    epochs
        Passes over the retained data afterwards, at least 0, one federated round per pass; neutral 0.
    alpha
        Share of a past deviation that the others undo in a round, in [0, 1]; neutral 0, which takes the mean
        of the others' logged updates; ``auto``: 2 divided by the rounds of the run.
    """

    epochs: int = Field(default=1, ge=0)
    alpha: Annotated[float, Field(ge=0, le=1)] | Auto = "auto"


TRAITS = Traits(
    name=NAME,
    summary="take out how the client's updates differ from the others', as far as is left, and train a pass",
    guarantee="approximate: what the others undid of a deviation is estimated by one number per round, and "
    "of what their data do not contradict, such as a backdoor, a part may be left",
    source="the papers of subtract, fast-fedul and finetune, combined here",
    cost="a round of the remaining clients per epoch, by default one",
    needs=lambda settings: Needs(
        log="full", rebuilds=True, fresh=True, remaining=settings.own(NAME, LeaveOutSettings).epochs > 0
    ),
    serves=frozenset({"client"}),
    refusal="the log holds one update per client, not per class or example",
    settings=LeaveOutSettings,
)

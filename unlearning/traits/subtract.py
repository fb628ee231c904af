"""Keys, needs and promises of `unlearning.methods.subtract`."""

from typing import Literal

from strategies.core.settings import Settings
from unlearning.settings import ForgetSettings
from unlearning.traits.base import Needs, Traits

NAME = "subtract"


class SubtractSettings(Settings):
    """Subtraction of the logged updates.

    Attributes
    ----------
    form
        ``lazy`` (the client sent nothing) or ``renormalised`` (the others' weights are scaled up to 1 in
        every round).
    """

    form: Literal["lazy", "renormalised"] = "lazy"


def needs(settings: ForgetSettings) -> Needs:
    """Return what the chosen form reads of the log."""
    if settings.own(NAME, SubtractSettings).form == "lazy":
        return Needs(log="sum")
    return Needs(log="full", rebuilds=True, fresh=True, form=' with forget.subtract.form = "renormalised"')


TRAITS = Traits(
    name=NAME,
    summary="subtract the client's logged updates",
    guarantee="approximate: the client's updates are gone, their influence on later updates of others is not",
    source="Wu, Zhu, Mitra, arXiv 2201.09441",
    cost="no round, no client visit",
    needs=needs,
    serves=frozenset({"client"}),
    refusal="the log holds one update per client, not per class or example",
    settings=SubtractSettings,
    flat_keys={"subtract-form": "form"},
)

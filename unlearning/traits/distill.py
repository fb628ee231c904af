"""Keys, needs and promises of `unlearning.methods.distill`."""

from dataclasses import replace
from typing import Literal

from pydantic import Field

from strategies.client.settings import DistillationSettings
from unlearning.settings import ForgetSettings
from unlearning.traits import fast_fedul, subtract
from unlearning.traits.base import Needs, Traits

NAME = "distill"
_STARTS = {traits.name: traits for traits in (subtract.TRAITS, fast_fedul.TRAITS)}


class DistillSettings(DistillationSettings):
    """Distillation on the server.

    Attributes
    ----------
    start
        The model it begins with, that of ``subtract`` or of ``fast-fedul``.
    teacher_filter
        Share of the public data left out, in [0, 1), where teacher and student disagree most; neutral 0.
    post_training_rounds
        Federated rounds of the remaining clients afterwards, at least 0; neutral 0.
    """

    start: Literal["subtract", "fast-fedul"] = "subtract"
    teacher_filter: float = Field(default=0.0, ge=0, lt=1)
    post_training_rounds: int = Field(default=0, ge=0)


def needs(settings: ForgetSettings) -> Needs:
    """Return the start's needs, public data, and the remaining clients for post-training rounds."""
    own = settings.own(NAME, DistillSettings)
    start = _STARTS[own.start].needs(settings)
    return replace(start, public=True, remaining=own.post_training_rounds > 0)


TRAITS = Traits(
    name=NAME,
    summary="subtract the client's logged updates, then distil the old model into the result on public data",
    guarantee="approximate: the teacher has seen the client, and its answers may carry the client over",
    source="Wu, Zhu, Mitra, arXiv 2201.09441",
    cost="no round and no client visit, or `forget.distill.post-training-rounds` rounds",
    needs=needs,
    serves=frozenset({"client"}),
    refusal="it starts from a subtraction, and the log holds one update per client, not per class or example",
    settings=DistillSettings,
    trains_as_the_run=True,
)

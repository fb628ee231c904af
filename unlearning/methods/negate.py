"""NoT: the server negates a layer, the remaining clients train on.

Khalil, Brunswic, Lamghari, Li, Beitollahi, Chen, "NoT: Federated Unlearning via Weight Negation", CVPR 2025,
arXiv 2503.05657; the central form is `unlearning.central.negate`:

    θ_l ← −θ_l  for the chosen layers l, by default the first;    then federated training on D_r.

The rounds are those of `finetune`, one local pass each.

Guarantee: none; negating again undoes it, so what is forgotten is what the rounds do not restore. Needs: the
remaining clients online; nothing stored, and nothing of the forgotten data. Cost: a round per epoch.
"""

from pydantic import field_validator

from strategies.core.errors import BadInput
from strategies.core.settings import checked_list, split_list, whole_number_as_text
from unlearning.central.negate import negate
from unlearning.methods.base import ForgetJob, Method, Needs, Outcome
from unlearning.methods.federated import RoundSettings
from unlearning.methods.finetune import finetuned_from

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


def negated(job: ForgetJob) -> Outcome:
    """Negate layers of the model, then train on; BadInput if it lacks a layer that is named."""
    run, own = job.run, job.settings.own(NAME, NegateSettings)
    try:
        model = negate(run.model(run.final), split_list(own.layers))
    except ValueError as error:
        raise BadInput(f"forget.negate.layers: {error}") from None
    return finetuned_from(job, run.layout.flatten(model.state_dict()), own)


METHOD = Method(
    name=NAME,
    summary="negate the first layer, then train on without the forgotten data",
    guarantee="none: what is forgotten is what training does not restore",
    source="Khalil et al., CVPR 2025, arXiv 2503.05657",
    cost="a round of the remaining clients per epoch",
    needs=lambda settings: Needs(remaining=True),
    run=negated,
    settings=NegateSettings,
    flat_keys={"negate-layers": "layers"},
)

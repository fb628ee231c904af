"""NoT: the server negates a layer, the remaining clients train on.

Khalil, Brunswic, Lamghari, Li, Beitollahi, Chen, "NoT: Federated Unlearning via Weight Negation", CVPR 2025,
arXiv 2503.05657; the central form is `unlearning.central.negate`:

    θ_l ← −θ_l  for the chosen layers l, by default the first;    then federated training on D_r.

The rounds are those of `finetune`, one local pass each.

Guarantee: none; negating again undoes it, so what is forgotten is what the rounds do not restore. Needs: the
remaining clients online; nothing stored, and nothing of the forgotten data. Cost: a round per epoch.
"""

from strategies.core.errors import BadInput
from strategies.core.settings import split_list
from unlearning.central.negate import negate
from unlearning.methods.base import ForgetJob, Method, Outcome
from unlearning.methods.finetune import finetuned_from
from unlearning.traits.negate import NAME, TRAITS, NegateSettings


def negated(job: ForgetJob) -> Outcome:
    """Negate layers of the model, then train on; BadInput if it lacks a layer that is named."""
    run, own = job.run, job.settings.own(NAME, NegateSettings)
    try:
        model = negate(run.model(run.final), split_list(own.layers))
    except ValueError as error:
        raise BadInput(f"forget.negate.layers: {error}") from None
    return finetuned_from(job, run.layout.flatten(model.state_dict()), own)


METHOD = Method.of(TRAITS, run=negated)

"""Subtraction with a cautious estimate of the skew, repaired by distilling mostly into the last layers.

A combination of two published methods, made for this project:

1. M' as in `fast_fedul` (Huynh et al., arXiv 2405.18040), but with a smaller α than that method's own: what
   is left of the client after the subtraction grows with α, and accuracy need not be saved here, as it comes
   back in the second step. Of an update in the first of T rounds about (1 − α)^T is subtracted, so a fixed α
   would leave more of the client the longer the run was; here α = 0.3 / T.
2. Distillation as in `distill` (Wu, Zhu, Mitra, arXiv 2201.09441) on the server's own inputs X: one pass of
   the whole model at half the step size, then passes of the head alone, the layers from the first linear one
   on, with the features z of the body computed once:

       minimise T² · KL( softmax(teacher(X) / T) ‖ softmax(head(z) / T) ),  z = body(X).

   In both the step size falls linearly to 0.

Why it is fast: a pass of the head takes a small part of the convolutions' work, and the log is read once. Why
it hardly brings the client back: the convolutions, in which a trigger is recognised, stay near where the
subtraction left them. A model without convolutions is distilled as a whole.

Guarantee: approximate, and the teacher still remembers the client, as for `distill`. Needs: the log of every
round and public data on the server; no client. At 0 epochs it is `fast_fedul` with the smaller α; at α = 0 it
starts from `subtract`. Cost: no round.
"""

import torch
from torch import Tensor, nn

from strategies.client.distillation import Lesson, distil
from strategies.client.evaluation import outputs_of
from strategies.core.examples import Examples, TensorExamples, in_memory
from unlearning.central.parameters import copied, layers_with_weights
from unlearning.methods import fast_fedul
from unlearning.methods.base import ForgetJob, Method, Outcome
from unlearning.methods.distill import without_unlabelled_term
from unlearning.traits.fast_distill import NAME, TRAITS, FastDistillSettings
from unlearning.traits.fast_fedul import SkewSettings

CAUTION = 0.3
"""α of the start times the rounds of the run, where no α is given."""


def cautious_alpha(rounds: int) -> float:
    """Return the α of the start for a run of at least one round.

    Examples
    --------
    >>> cautious_alpha(30)
    0.01
    """
    return CAUTION / rounds


def head_of(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return (body, head): the layers that make features of inputs, and the layers that follow.

    The head of a chain of layers begins with its first linear layer; of any other model it is the last layer
    with weights. Training the head trains the model; the body is for inference.
    """
    if isinstance(model, nn.Sequential):
        layers = list(model)
        first = next((i for i, layer in enumerate(layers) if isinstance(layer, nn.Linear)), 0)
        return model[:first], model[first:]
    last = layers_with_weights(model)[-1]
    body = copied(model)
    body.set_submodule(last, nn.Identity())
    return body, model.get_submodule(last)


def features_of(body: nn.Module, like: nn.Module, examples: Examples) -> Tensor:
    """Return the body's outputs, shape [n, ...], on the CPU; a body without layers gives the inputs.

    `like` is the model, on whose device they are computed.
    """
    if not any(True for _ in body.parameters()):
        device = next(like.parameters()).device
        with torch.no_grad():
            return torch.as_tensor(body(in_memory(examples).x.to(device))).cpu()
    return outputs_of(body, examples)


def distilled_fast(job: ForgetJob) -> Outcome:
    """Subtract with a small α, then distil the old model's answers into the last layers."""
    run, public = job.run, job.public
    own = job.settings.own(NAME, FastDistillSettings)
    alpha = cautious_alpha(run.plan.rounds) if own.skew_alpha == "auto" else own.skew_alpha
    start = fast_fedul.subtracted_with(job, SkewSettings(alpha=alpha, theta=own.skew_theta))
    if torch.equal(start.flat, run.final):
        return start
    settings, notes = without_unlabelled_term(own, public)
    with run.lent(run.final) as teacher:
        answers = outputs_of(teacher, public, task=run.task)
    student, notes, details = run.model(start.flat), [*start.notes, *notes], start.details
    del start  # As large as the student
    momentum, draw = run.train.momentum, job.generator("distill")
    whole = Lesson(public, answers)
    distil(student, whole, settings.whole_model, momentum, draw, fading=True, task=run.task)
    body, head = head_of(student)
    data = TensorExamples(features_of(body, student, public), public.targets())
    distil(head, Lesson(data, answers), settings, momentum, draw, fading=True, task=run.task)
    flat = run.layout.flatten(student.state_dict())
    return Outcome(flat, notes, {**details, "public_examples": len(public)})


METHOD = Method.of(TRAITS, run=distilled_fast)

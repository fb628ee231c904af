"""Forgetting a client by subtraction, repaired by distillation on the server.

Wu, Zhu, Mitra, "Federated Unlearning with Knowledge Distillation", arXiv 2201.09441, section 3.3. The teacher
is the old model M_F, the student starts at M' (see `subtract`), and on the server's own inputs X the student
minimises

    T² · KL( softmax(teacher(X) / T) ‖ softmax(student(X) / T) )  [ + λ · cross-entropy(student(X), y) ]

with a high T; afterwards T = 1. X need not be labelled; where it is, λ > 0 adds the hard labels. A backdoor's
trigger does not occur in X and so is not taught. Optionally a few federated rounds of the remaining clients
follow.

Differs from the paper: ``teacher-filter`` may leave out the share of X on which teacher and student disagree
most, and ``forget.distill.start = "fast-fedul"`` begins with M' of `fast_fedul` instead.

Guarantee: approximate, and the teacher still remembers the client: what it says about X may carry the client
over. Read the membership figures, not only the backdoor's. Needs: the log with retention ``sum``, or ``full``
for the other start, and public data on the server; the remaining clients only for post-training rounds. Cost:
no round, or the post-training ones.
"""

from dataclasses import replace
from typing import TypeVar

import torch
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.client.distillation import Lesson, distil
from strategies.client.evaluation import outputs_of
from strategies.client.settings import DistillationSettings
from strategies.core.examples import Examples
from strategies.plan import RoundResult
from strategies.task import CLASSIFICATION, Task
from unlearning.methods import fast_fedul, subtract
from unlearning.methods.base import ForgetJob, Method, Outcome
from unlearning.methods.federated import clients_with_retained
from unlearning.spending import train_after
from unlearning.traits.distill import NAME, TRAITS, DistillSettings

STARTS = {method.name: method for method in (subtract.METHOD, fast_fedul.METHOD)}
"""Where the student may begin, by the value of ``forget.distill.start``."""


D = TypeVar("D", bound=DistillationSettings)


def nearest_to_teacher(
    student: Tensor, teacher: Tensor, drop_share: float, task: Task = CLASSIFICATION
) -> Tensor:
    """Return the sorted positions left without the share of examples on which the student disagrees most.

    Parameters
    ----------
    student, teacher
        Outputs, shape [n, classes] for classification; their distance is the task's, KL(teacher ‖ student).
    drop_share
        In [0, 1); 0 keeps all.
    """
    divergence = task.divergences(student, teacher)
    keep = len(divergence) - int(drop_share * len(divergence))
    return divergence.argsort(stable=True)[:keep].sort().values


def without_unlabelled_term(settings: D, public: Examples) -> tuple[D, list[str]]:
    """Return the settings, without the hard-label term if the public data have no labels, with notes."""
    if settings.hard_label_weight == 0 or not bool((public.targets() < 0).any()):
        return settings, []
    note = "the public data have no labels of this run's classes: distilled without the hard-label term"
    return settings.model_copy(update={"hard_label_weight": 0.0}), [note]


def distilled(job: ForgetJob) -> Outcome:
    """Subtract, distil the old model into the result, and train for `post_training_rounds`."""
    run, public = job.run, job.public
    settings = job.settings.own(NAME, DistillSettings)
    start = STARTS[settings.start].run(job)
    if torch.equal(start.flat, run.final):
        return start
    settings, unlabelled = without_unlabelled_term(settings, public)
    notes = [*start.notes, *unlabelled]
    with run.lent(run.final) as teacher:
        taught = outputs_of(teacher, public, task=run.task)
    student = run.model(start.flat)
    del start  # As large as the student
    if settings.teacher_filter > 0:
        before = outputs_of(student, public, task=run.task)
        kept = nearest_to_teacher(before, taught, settings.teacher_filter, run.task)
        public, taught = public.subset(kept), taught[kept]
    draw = job.generator("distill")
    distil(student, Lesson(public, taught), settings, run.train.momentum, draw, task=run.task)
    flat = run.layout.flatten(student.state_dict())
    if settings.post_training_rounds:
        flat = _post_trained(job, flat, settings.post_training_rounds)
    details = {"public_examples": len(public), "post_training_rounds": settings.post_training_rounds}
    return Outcome(flat, notes, details)


def _post_trained(job: ForgetJob, flat: Tensor, rounds: int) -> Tensor:
    run = job.run
    first = run.plan.rounds
    plan = replace(run.plan.going_on(rounds), drop=job.drop)

    def report(result: RoundResult, _: Strategy) -> None:
        job.progress(result.round - first, rounds, result.metrics)

    return train_after(run, plan, clients_with_retained(job), flat, report, completed_rounds=first)


METHOD = Method.of(TRAITS, run=distilled)

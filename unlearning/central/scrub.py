"""SCRUB: away from the old model's answers on the forgotten data, back to them on the retained.

Kurmanji, Triantafillou, Hayes, Triantafillou, "Towards Unbounded Machine Unlearning", NeurIPS 2023, arXiv
2302.09880, algorithm 1. With the model before, w_o, as a teacher and d = KL(f(x; w_o) ‖ f(x; w)):

    for epoch = 1, …, STEPS:
        if epoch ≤ MAX-STEPS:  for batches of D_f:  w ← w + ε ∇ mean d(x; w)                   (a max-epoch)
        for batches of D_r:  w ← w − ε ∇ mean [ α d(x; w) + γ ℓ(f(x; w), y) ]                  (a min-epoch)

The last epochs only bring back what the max-epochs broke. At w = w_o, d is 0 and so is its gradient: of a
model without dropout the first max-epoch moves nothing, and from the second on there is ascent. Differs from
the paper: SGD with momentum, which starts anew in every epoch. Without the rewinding of SCRUB+R, which needs
held-out data that are like D_f.

Guarantee: none; the answers on D_f become others, not those of a model that never saw them.
Needs: both sets. At no max-epoch it is training on D_r with the old model's answers.
Cost: the epochs over D_r, and some over D_f.
"""

from pydantic import Field
from torch import Generator, nn

from strategies.core.examples import Examples
from strategies.task import CLASSIFICATION, Task
from unlearning.central.data import Data, gathered
from unlearning.central.lessons import Lesson, taught
from unlearning.central.masks import Masks
from unlearning.central.parameters import copied
from unlearning.central.training import SgdSettings


class ScrubSettings(SgdSettings):
    """SCRUB; `epochs` counts STEPS, the other fields are as in `SgdSettings`.

    Attributes
    ----------
    max_epochs : int
        MAX-STEPS, how many of the epochs begin with ascent, at least 0; neutral 0, and next to it 1.
    teacher_weight, label_weight : float
        α and γ, at least 0.
    """

    max_epochs: int = Field(default=2, ge=0)
    teacher_weight: float = Field(default=0.5, ge=0)
    label_weight: float = Field(default=1.0, ge=0)


def max_epoch(
    model: nn.Module,
    forget: Examples,
    teacher: nn.Module,
    settings: SgdSettings,
    generator: Generator,
    *,
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Return a copy of the model after a pass over D_f, at least one example, away from the teacher."""
    lesson = Lesson.answers(forget, teacher, -1.0, task=task)
    return taught(model, [lesson], settings, generator, masks=masks, task=task)


def min_epoch(
    model: nn.Module,
    retain: Examples,
    teacher: nn.Module,
    settings: ScrubSettings,
    generator: Generator,
    *,
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Return a copy of the model after a pass over D_r, at least one example, to teacher and labels."""
    lesson = Lesson.answers(retain, teacher, settings.teacher_weight, settings.label_weight, task)
    return taught(model, [lesson], settings, generator, masks=masks, task=task)


def scrub(
    model: nn.Module,
    retain: Data,
    forget: Data,
    settings: ScrubSettings,
    generator: Generator,
    *,
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Return a copy of the model θo after SCRUB on D_r and D_f, each at least one example; see `trained`."""
    stays, goes, found = gathered(retain), gathered(forget), copied(model)
    one = settings.model_copy(update={"epochs": 1})
    for epoch in range(settings.epochs):
        if epoch < settings.max_epochs:
            found = max_epoch(found, goes, model, one, generator, masks=masks, task=task)
        found = min_epoch(found, stays, model, one, generator, masks=masks, task=task)
    return found

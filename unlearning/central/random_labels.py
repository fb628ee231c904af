"""Random labels (RL): train on the forgotten data with wrong labels, beside the retained with their own.

Golatkar, Achille, Soatto, "Eternal Sunshine of the Spotless Net", CVPR 2020, arXiv 1911.04933, section 6
(baselines); Graves, Nagisetty, Ganesh, "Amnesiac Machine Learning", AAAI 2021, arXiv 2010.10981:

    θu = SGD(θo; D_r ∪ {(x, y') : (x, y) ∈ D_f}),   y' uniform over all labels but y, drawn once.

Guarantee: none; the model learns something false of D_f, which retraining would not teach it.
Needs: both sets, and class labels. Without a forgotten example it is fine-tuning.
Cost: the epochs over both sets.
"""

import torch
from torch import Generator, Tensor, nn

from strategies.client.evaluation import outputs_of
from strategies.core.examples import Examples
from strategies.task import CLASSIFICATION, Task
from unlearning.central.data import Data, gathered
from unlearning.central.lessons import Lesson, taught
from unlearning.central.masks import Masks
from unlearning.central.training import SgdSettings


class RandomLabelsSettings(SgdSettings):
    """Random labels; fields and their meaning as in `SgdSettings`."""


def wrong_labels(labels: Tensor, num_labels: int, generator: Generator) -> Tensor:
    """Return a label for each, shape [n], int64, uniform over all but its own.

    ValueError if there is no other.
    """
    if num_labels < 2:
        raise ValueError(f"a wrong label needs at least 2 labels, got {num_labels}")
    shifts = torch.randint(1, num_labels, (len(labels),), generator=generator)
    return (labels.cpu() + shifts) % num_labels


def mislabelled(model: nn.Module, forget: Examples, generator: Generator, task: Task) -> Lesson:
    """Return the lesson of wrong labels, as many as the model has outputs."""
    if not len(forget):
        return Lesson.labels(forget)
    num_labels = outputs_of(model, forget.subset([0]), task=task).shape[1]
    return Lesson.labels(forget, targets=wrong_labels(forget.targets(), num_labels, generator))


def random_labels(
    model: nn.Module,
    retain: Data,
    forget: Data,
    settings: SgdSettings,
    generator: Generator,
    *,
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Return a copy of the model θo, trained on D_r and the mislabelled D_f, of which one may be empty.

    Parameters are those of `trained`; the labels are drawn before the batches.
    """
    lessons = [Lesson.labels(gathered(retain)), mislabelled(model, gathered(forget), generator, task)]
    return taught(model, lessons, settings, generator, masks=masks, task=task)

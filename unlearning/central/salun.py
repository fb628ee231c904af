"""SalUn: random labels, learned by the weights alone that the forgotten data depend on most.

Fan, Liu, Zhang, Wong, Wei, Liu, "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency",
ICLR 2024, arXiv 2310.12508, sections 4 and 5:

    m = 1( |∇_θ L(θo; D_f)| ≥ γ ),   θu = m ⊙ (θo + Δθ) + (1 − m) ⊙ θo,

Δθ by random labels (see `unlearning.central.random_labels`), γ the median of the absolute gradient, so that
half of the weights are salient. Weights that are not salient keep their value to the bit.

Guarantee: none, as that of random labels.
Needs: both sets, and class labels. With all weights salient it is random labels.
Cost: a gradient over D_f, and the epochs over both sets.
"""

import math

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from strategies.client.training import GradientAdjustment, Tensors
from strategies.task import CLASSIFICATION, Task
from unlearning.central.data import Data, gathered
from unlearning.central.gradients import Objective, gradient_sum
from unlearning.central.lessons import Lesson, taught
from unlearning.central.masks import Masks, flat_mask
from unlearning.central.parameters import flat_parameters, load_parameters, split_like
from unlearning.central.random_labels import mislabelled
from unlearning.central.training import SgdSettings


class SalUnSettings(SgdSettings):
    """SalUn; the other fields as in `SgdSettings`.

    Attributes
    ----------
    salient_share : float
        Share of the weights that change, in (0, 1]; neutral 1, which is random labels.
    """

    salient_share: float = Field(default=0.5, gt=0, le=1)


def salient(gradient: Tensor, share: float, free: Tensor | None = None) -> Tensor:
    """Return the weights with the largest absolute gradients, shape [P], bool; of equals the first.

    Parameters
    ----------
    gradient
        Shape [P].
    share
        In (0, 1], of the weights that are free to change.
    free
        Which weights are not pruned, shape [P], bool; None: all.

    Examples
    --------
    >>> salient(torch.tensor([0.1, -3.0, 2.0, 0.0]), 0.5)
    tensor([False,  True,  True, False])
    """
    kept = torch.ones(len(gradient), dtype=torch.bool) if free is None else free
    sizes = gradient.abs().masked_fill(~kept, -1.0)
    chosen = sizes.argsort(descending=True, stable=True)[: math.ceil(share * int(kept.sum()))]
    return torch.zeros_like(kept).index_fill(0, chosen, True)


def only(model: nn.Module, chosen: Tensor, weight_decay: float) -> GradientAdjustment:
    """Return the adjustment after which SGD moves the chosen weights alone, shape [P], bool.

    The gradient of the others is what weight decay adds, taken away.
    """
    by_parameter = list(split_like(chosen, model).values())

    def adjust(parameters: Tensors, gradients: Tensors) -> Tensors:
        triples = zip(parameters, gradients, by_parameter, strict=True)
        return [torch.where(here.to(g.device), g, -weight_decay * w.detach()) for w, g, here in triples]

    return adjust


def mislabelled_within(
    model: nn.Module,
    parts: tuple[Data, Data],
    chosen: Tensor,
    settings: SgdSettings,
    generator: Generator,
    *,
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Return a copy of the model after random labels on (D_r, D_f) that moved the chosen weights alone."""
    retain, forget = map(gathered, parts)
    lessons = [Lesson.labels(retain), mislabelled(model, forget, generator, task)]
    held = [only(model, chosen, settings.weight_decay)]
    found = taught(model, lessons, settings, generator, adjustments=held, masks=masks, task=task)
    free = chosen & flat_mask(model, masks)
    start = flat_parameters(model) * flat_mask(model, masks)
    load_parameters(found, torch.where(free, flat_parameters(found), start))
    return found


def salun(
    model: nn.Module,
    retain: Data,
    forget: Data,
    settings: SalUnSettings,
    generator: Generator,
    *,
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Return a copy of the model θo after SalUn on D_r and D_f, at least one of the latter; see `trained`."""
    parts = gathered(retain), gathered(forget)
    gradient = gradient_sum(model, parts[1], Objective(task)).mean
    chosen = salient(gradient, settings.salient_share, flat_mask(model, masks))
    return mislabelled_within(model, parts, chosen, settings, generator, masks=masks, task=task)

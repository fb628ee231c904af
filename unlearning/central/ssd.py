"""SSD, selective synaptic dampening: shrink the weights that matter more to the forgotten data than to all.

Foster, Schoepf, Brintrup, "Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening",
AAAI 2024, arXiv 2308.07707, section 3. With the diagonal of the Fisher information over a set D, from the
gradients of each example's own loss, I_D = (1/|D|) Σ (∂ℓ / ∂θ)²:

    θ_i ← β_i θ_i  where  I_{D_f,i} > α I_{D,i},     β_i = min(λ I_{D,i} / I_{D_f,i}, 1),

D all training data, D_f included. Differs from the released code: the square is taken per example, as in the
formula, and not of the gradient of a batch.

Guarantee: none; what is dampened is chosen by the curvature at θo.
Needs: both sets, once. As I_{D_f} is at most |D| / |D_f| times I_D, an α from there on changes nothing.
Cost: one backward pass per example.
"""

import math

import torch
from torch import Tensor, nn

from strategies.core.examples import Examples
from strategies.task import CLASSIFICATION, Task
from unlearning.central.data import Data, gathered
from unlearning.central.gradients import ExampleSum, Objective, add_squares, gradient_blocks
from unlearning.central.parameters import flat_parameters, moved, trainable
from unlearning.traits.ssd import SsdSettings


def importance_sum(model: nn.Module, examples: Examples, task: Task = CLASSIFICATION) -> ExampleSum:
    """Return Σ (∂ℓ)² over examples; over no example it is zero."""
    total = torch.zeros(sum(p.numel() for p in trainable(model).values()), dtype=torch.float64)
    for block in gradient_blocks(model, examples, Objective(task)) if len(examples) else ():
        add_squares(total, block)
    return ExampleSum(total, len(examples))


def factors(of_forgotten: Tensor, of_all: Tensor, alpha: float, dampening: float) -> Tensor:
    """Return β, what each weight is multiplied by, shape [P], in [0, 1], from I_{D_f} and I_D, shape [P].

    Examples
    --------
    >>> factors(torch.tensor([30.0, 8.0]), torch.tensor([2.0, 1.0]), alpha=10, dampening=1)
    tensor([0.0667, 1.0000])
    """
    shrunk = (dampening * of_all / of_forgotten).clamp(max=1.0)
    return torch.where(of_forgotten > alpha * of_all, shrunk, torch.ones_like(shrunk))


def chosen_alpha(settings: SsdSettings, num_forgotten: int, num_examples: int) -> float:
    """Return α; ``auto``: the geometric mean of 1 and the largest ratio that there can be, |D| / |D_f|.

    That is the paper's 10 where a hundredth is forgotten. ValueError if there is no forgotten example.

    Examples
    --------
    >>> chosen_alpha(SsdSettings(), 10, 1000)
    10.0
    """
    if settings.alpha != "auto":
        return settings.alpha
    if num_forgotten < 1:
        raise ValueError("the mean over 0 examples is not defined; expected at least 1")
    return math.sqrt(num_examples / num_forgotten)


def dampened(
    model: nn.Module, forgotten: ExampleSum, retained: ExampleSum, settings: SsdSettings
) -> nn.Module:
    """Return a copy of the model with dampened weights; ValueError if there is no forgotten example."""
    everything = forgotten + retained
    alpha = chosen_alpha(settings, forgotten.count, everything.count)
    keep = factors(forgotten.mean, everything.mean, alpha, settings.dampening)
    return moved(model, (keep - 1) * flat_parameters(model).double())


def ssd(
    model: nn.Module, retain: Data, forget: Data, settings: SsdSettings, *, task: Task = CLASSIFICATION
) -> nn.Module:
    """Return a copy of the model θo after SSD with D_r and D_f, at least one example of D_f.

    Pruned weights are zero and stay so.
    """
    forgotten, retained = (importance_sum(model, gathered(part), task) for part in (forget, retain))
    return dampened(model, forgotten, retained, settings)

"""l1-sparse: fine-tuning under an L1 penalty that fades out, so that the model is sparse while it forgets.

Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023,
arXiv 2304.04934, section 4, with the schedule of decreasing γ that the paper prefers:

    θu = argmin_θ L(θ; D_r) + γ_e ‖θ‖₁,    γ_e = γ (1 − e/E)  in epoch e = 0, …, E − 1.

The penalty is over all trainable parameters, by subgradient: γ_e·sign(w) joins the loss gradient, 0 at w =
0. SGD on a subgradient makes weights small rather than exactly zero. The released code's default γ = 0.2
drowns the loss; the default here is 5e-4.

Guarantee: none; empirically the gap to retraining closes at the cost of fine-tuning.
Needs: the retained data. At γ = 0 it is fine-tuning, to the bit.
Cost: as fine-tuning.
"""

from collections.abc import Sequence
from typing import final

import torch
from pydantic import Field
from torch import Generator, nn

from strategies.client.training import Tensors
from strategies.task import CLASSIFICATION, Task
from unlearning.central.data import Data, gathered
from unlearning.central.masks import Masks
from unlearning.central.training import SgdSettings, trained


class L1SparseSettings(SgdSettings):
    """Fine-tuning with an L1 penalty; the other fields as in `SgdSettings`.

    Attributes
    ----------
    gamma : float
        Weight of the penalty in the first epoch, at least 0; neutral 0, which is fine-tuning.
    """

    gamma: float = Field(default=5e-4, ge=0)


def penalty_weights(gamma: float, epochs: int) -> list[float]:
    """Return γ_e of every epoch.

    Examples
    --------
    >>> penalty_weights(0.5, 4)
    [0.5, 0.375, 0.25, 0.125]
    """
    return [gamma * (1 - epoch / epochs) for epoch in range(epochs)]


@final
class FadingL1:
    """The gradient adjustment γ_e·sign(w); it counts its calls, one per optimiser step, to know the epoch."""

    def __init__(self, weights: Sequence[float], steps_per_epoch: int) -> None:
        self._weights = weights
        self._steps_per_epoch = steps_per_epoch
        self._step = 0

    def __call__(self, parameters: Tensors, gradients: Tensors) -> Tensors:
        """Return the gradients with the penalty's subgradient."""
        weight = self._weights[self._step // self._steps_per_epoch]
        self._step += 1
        if weight <= 0:
            return gradients
        pairs = zip(parameters, gradients, strict=True)
        return [g.add(torch.sign(w.detach()), alpha=weight) for w, g in pairs]


def l1_sparse(
    model: nn.Module,
    retain: Data,
    settings: L1SparseSettings,
    generator: Generator,
    *,
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Return a copy of the model θo, fine-tuned on the retained data D_r under the fading penalty.

    Parameters and errors are those of `trained`.
    """
    retain = gathered(retain)
    weights = penalty_weights(settings.gamma, settings.epochs)
    penalty = FadingL1(weights, settings.steps_per_epoch(len(retain)))
    return trained(model, retain, settings, generator, adjustments=[penalty], masks=masks, task=task)

"""Central SGD for the forgetting methods: `strategies.client.training.local_train` on a copy of the model.

At no mask and no adjustment it is exactly the local training of a client.
"""

import math
from collections.abc import Sequence

from pydantic import Field
from torch import Generator, nn

from strategies.client.settings import TrainSettings
from strategies.client.training import GradientAdjustment, joined, local_train
from strategies.core.settings import Settings
from strategies.task import CLASSIFICATION, Task
from unlearning.central.data import Data, gathered
from unlearning.central.masks import Masks, apply_masks, mask_adjustment
from unlearning.central.parameters import copied


class SgdSettings(Settings):
    """Mini-batch SGD, as the forgetting methods use it.

    Attributes
    ----------
    epochs : int
        Passes over the examples, at least 0; neutral 0, which leaves the model as it is.
    learning_rate : float
        Step size, above 0, the same in every epoch.
    momentum : float
        In [0, 1); neutral 0.
    weight_decay : float
        L2 coefficient, at least 0; neutral 0. The papers' image experiments use 5e-4.
    batch_size : int
        Examples per step, at least 1.
    """

    epochs: int = Field(default=10, ge=0)
    learning_rate: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: int = Field(default=32, ge=1)

    @property
    def train(self) -> TrainSettings:
        """The same optimiser as local training knows it; epochs are counted here, as 0 is allowed."""
        return TrainSettings(
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
        )

    def steps_per_epoch(self, num_examples: int) -> int:
        """Return the optimiser steps of one pass over that many examples."""
        return math.ceil(num_examples / self.batch_size)


def trained(
    model: nn.Module,
    examples: Data,
    settings: SgdSettings,
    generator: Generator,
    *,
    adjustments: Sequence[GradientAdjustment] = (),
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Return a copy of a model, trained on labelled examples.

    Parameters
    ----------
    model
        On any device; it is not altered.
    examples
        At least one.
    settings
        Epochs and optimiser.
    generator
        Draws the batches; on the CPU.
    adjustments
        Changes of the gradients before each step, in order.
    masks
        Pruned weights, zero from the start to the end; None for a dense model.

    Raises
    ------
    ValueError
        If there is no example, or a mask fits no parameter.
    """
    twin = copied(model)
    if masks:
        apply_masks(twin, masks)
        adjustments = [*adjustments, mask_adjustment(twin, masks)]
    return train_in_place(twin, examples, settings, generator, adjustments=adjustments, task=task)


def train_in_place(
    model: nn.Module,
    examples: Data,
    settings: SgdSettings,
    generator: Generator,
    *,
    adjustments: Sequence[GradientAdjustment] = (),
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Train a model and return it, in the mode it had and without gradients; parameters as in `trained`.

    For callers who need it no more as it was: a large model is then in memory once.
    """
    was_training, data = model.training, gathered(examples)
    steps = settings.epochs * settings.steps_per_epoch(len(data))
    adjust = joined(*adjustments) if adjustments else None
    rates = [settings.learning_rate] * steps
    local_train(model, data, settings.train, generator, rates=rates, adjust=adjust, task=task)
    model.zero_grad(set_to_none=True)
    return model.train(was_training)

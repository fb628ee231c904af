"""Example-level private local training: DP-SGD.

Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, arXiv 1607.00133, Algorithm 1; each example
i is in the batch with probability q:

    g ← (1 / qn) ( Σ_i g_i · min(1, C / ‖g_i‖) + N(0, σ²C² I) )

The clipped sum comes from one backward pass (`strategies.layers.privacy.clipping`), in place of the two of
Opacus' ghost clipping (Li, Tramèr, Liang, Hashimoto, arXiv 2110.05679): the second one only forms the sum,
for which the first has all that is needed. Noise, scaling and the check of the model are Opacus'.

Differs from the paper: the sum is divided by the *expected* batch size qn, which says nothing about the batch
drawn, and a batch may be empty: then the step is noise alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from opacus.validators import ModuleValidator
from opacus.validators.errors import UnsupportedModuleError
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.client.training import (
    Batch,
    GradientAdjustment,
    TrainStats,
    gradients_in,
    make_optimizer,
    planned_steps,
    put_gradients,
)
from strategies.core.errors import BadInput
from strategies.core.examples import Examples
from strategies.core.secret_random import Randomness, RandomStream
from strategies.core.seeds import varying
from strategies.layers.privacy.accounting import sample_rate
from strategies.layers.privacy.clipping import ClippedSum
from strategies.layers.privacy.noise import noised
from strategies.task import CLASSIFICATION, Task


def poisson_batches(num_examples: int, rate: float, num_steps: int, stream: RandomStream) -> Iterator[Tensor]:
    """Yield index batches; each contains each example independently with probability `rate`."""
    for _ in range(num_steps):
        yield torch.nonzero(stream.uniform(num_examples) < rate).flatten()


@final
@dataclass
class PrivateTrainer:
    """Local training that an example's presence hardly changes; takes the place of `local_train`.

    It counts the steps that were taken, so that the account can check that these are the steps
    that were paid for.

    Parameters
    ----------
    noise_multiplier
        σ, at least 0.
    clip_norm
        C, above 0.
    """

    noise_multiplier: float
    clip_norm: float
    randomness: Randomness
    steps: int = field(default=0, init=False)

    def __call__(
        self,
        model: nn.Module,
        examples: Examples,
        settings: TrainSettings,
        generator: torch.Generator,
        *,
        num_steps: int | None = None,
        adjust: GradientAdjustment | None = None,
        task: Task = CLASSIFICATION,
    ) -> TrainStats:
        """Train a model in place; see `strategies.client.training.local_train` for the parameters.

        `adjust` sees gradients that carry the noise already, so it must not look at data. The loss is not
        reported: it would tell about the examples without noise.

        Raises
        ------
        BadInput
            If the model cannot be trained privately; nothing was changed then.
        """
        require_private(model)
        parameters = [p for p in model.parameters() if p.requires_grad]
        device = parameters[0].device
        steps = planned_steps(len(examples), settings) if num_steps is None else num_steps
        rate = sample_rate(len(examples), settings)
        sampling, noise = self.randomness.after(generator), self.randomness.after(generator)
        optimizer = make_optimizer(parameters, settings)
        model.train()
        data, vary = examples.to(device), varying(generator)
        try:
            with ClippedSum(model, self.clip_norm) as clipped:
                for batch in poisson_batches(len(data), rate, steps, sampling):
                    drawn = data.training_batch(batch, vary, alone=True) if len(batch) else None
                    _add_up(clipped, model, task, drawn, parameters)
                    self.add_noise(parameters, rate * len(examples), noise)
                    _step(optimizer, parameters, adjust)
                    self.steps += 1
        finally:
            model.zero_grad(set_to_none=True)
        return TrainStats(steps, 0.0)

    def add_noise(
        self, parameters: Sequence[nn.Parameter], expected_batch_size: float, stream: RandomStream
    ) -> None:
        """Turn clipped sums of gradients into what is released: with noise, and divided by qn.

        Parameters
        ----------
        parameters
            Trainable, each with its sum as gradient, which is replaced.
        expected_batch_size
            qn.
        """
        sums = torch.cat([_gradient(parameter).flatten() for parameter in parameters])
        released = noised(sums, self.noise_multiplier, self.clip_norm, stream).div_(expected_batch_size)
        parts = torch.split(released, [parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)


def require_private(model: nn.Module) -> None:
    """Refuse a model in which one example's gradient depends on the others.

    Raises
    ------
    BadInput
        Naming what Opacus objects to.
    """
    errors: list[UnsupportedModuleError] = ModuleValidator.validate(model, strict=False)
    if errors:
        reason = str(errors[0]).splitlines()[0]
        raise BadInput(f'model.name: cannot be trained with privacy.unit = "example": {reason}')


def _add_up(
    clipped: ClippedSum,
    model: nn.Module,
    task: Task,
    drawn: Batch | None,
    parameters: Sequence[nn.Parameter],
) -> None:
    """Leave the clipped sum of a batch's gradients in `.grad`: zeros where the batch is empty."""
    if drawn is not None:
        inputs, targets = drawn
        clipped.backward(task.losses(task.forward(model, inputs), targets))
        return
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)


def _step(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], adjust: GradientAdjustment | None
) -> None:
    """Adjust gradients that carry their noise, and take the step."""
    if adjust is not None:
        put_gradients(parameters, adjust(parameters, gradients_in(parameters)))
    optimizer.step()


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise RuntimeError("a trainable parameter has no gradient")
    return parameter.grad

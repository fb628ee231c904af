"""Example-level private local training: DP-SGD.

Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, arXiv 1607.00133, Algorithm 1; each example
i is in the batch with probability q:

    g ← (1 / qn) ( Σ_i g_i · min(1, C / ‖g_i‖) + N(0, σ²C² I) )

The clipped sum comes from one backward pass (`strategies.privacy.clipping`), in place of the two of Opacus'
ghost clipping (Li, Tramèr, Liang, Hashimoto, arXiv 2110.05679): the second one only forms the sum, for which
the first has all that is needed. Noise, scaling and the check of the model are Opacus'.

Differs from the paper: the sum is divided by the *expected* batch size qn, which says nothing about the batch
drawn, and a batch may be empty: then the step is noise alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

import torch
from opacus.optimizers import DPOptimizer, get_optimizer_class
from opacus.validators import ModuleValidator
from opacus.validators.errors import UnsupportedModuleError
from torch import Tensor, nn
from torch.nn import functional

from strategies.errors import BadInput
from strategies.examples import Examples
from strategies.local_training import GradientAdjustment, TrainStats, make_optimizer, planned_steps
from strategies.privacy.accounting import sample_rate
from strategies.privacy.clipping import ClippedSum
from strategies.privacy.noise import Randomness
from strategies.settings import TrainSettings


def poisson_batches(
    num_examples: int, rate: float, num_steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield index batches in which each example is by itself with probability `rate`; some may be empty."""
    for _ in range(num_steps):
        yield torch.nonzero(torch.rand(num_examples, generator=generator) < rate).flatten()


@final
@dataclass
class PrivateTrainer:
    """Local training that an example's presence hardly changes; takes the place of `local_train`.

    It counts the steps that were taken, so that whoever accounts for them can see that they were those that
    were paid for.

    Parameters
    ----------
    noise_multiplier
        σ, at least 0.
    clip_norm
        C, above 0.
    randomness
        Of samples and noise.
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
        learning_rate: float | None = None,
        num_steps: int | None = None,
        adjust: GradientAdjustment | None = None,
    ) -> TrainStats:
        """Train a model in place; see `strategies.local_training.local_train` for the parameters.

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
        sampling = self.randomness.generator(generator, torch.device("cpu"))
        noise = self.randomness.generator(generator, device)
        step_size = settings.learning_rate if learning_rate is None else learning_rate
        plain = make_optimizer(parameters, settings, step_size)
        model.train()
        data = examples.to(device)
        with private_parts(model, plain, self, rate * len(examples), noise) as (clipped, optimizer):
            for batch in poisson_batches(len(data), rate, steps, sampling):
                optimizer.zero_grad(set_to_none=True)
                if len(batch):
                    index = batch.to(device)
                    clipped.backward(
                        functional.cross_entropy(model(data.x[index]), data.y[index], reduction="none")
                    )
                else:
                    _zero_gradients(parameters)
                _step(optimizer, plain, parameters, adjust)
                self.steps += 1
        return TrainStats(steps, 0.0)


@contextmanager
def private_parts(
    model: nn.Module,
    plain: torch.optim.Optimizer,
    how: PrivateTrainer,
    expected_batch_size: float,
    noise: torch.Generator,
) -> Iterator[tuple[ClippedSum, DPOptimizer]]:
    """Yield what clips and Opacus' optimiser, which adds the noise; leave the model as it was before.

    A model that serves many clients is made private again and again. Opacus' optimiser for ghost clipping is
    the one that takes a sum that was clipped already.
    """
    try:
        optimizer = get_optimizer_class(clipping="flat", distributed=False, grad_sample_mode="ghost")(
            plain,
            noise_multiplier=how.noise_multiplier,
            max_grad_norm=how.clip_norm,
            expected_batch_size=expected_batch_size,
            generator=noise,
        )
        with ClippedSum(model, how.clip_norm) as clipped:
            yield clipped, optimizer
    finally:
        for parameter in model.parameters():
            parameter.grad = None
            if hasattr(parameter, "summed_grad"):
                del parameter.summed_grad


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


def _zero_gradients(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)


def _step(
    optimizer: DPOptimizer,
    plain: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    adjust: GradientAdjustment | None,
) -> None:
    """Add the noise, adjust, and take the step."""
    optimizer.pre_step()
    if adjust is not None:
        adjust(parameters)
    plain.step()

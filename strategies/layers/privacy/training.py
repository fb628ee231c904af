"""Example-level private local training: DP-SGD.

Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, arXiv 1607.00133, Algorithm 1; each example
i is in the batch with probability q:

    g ← (1 / qn) ( Σ_i g_i · min(1, C / ‖g_i‖) + N(0, σ²C² I) )

Clipping, noise and scaling stand behind Opacus' interface (`strategies.layers.privacy.engines`), as does the
check of the model (`strategies.layers.privacy.models`).

Differs from the paper: the sum is divided by the *expected* batch size qn, which says nothing about the batch
drawn, and a batch may be empty: then the step is noise alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
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
    set_rate,
)
from strategies.core.examples import Examples
from strategies.core.secret_random import Randomness, RandomStream
from strategies.layers.privacy.accounting import sample_rate
from strategies.layers.privacy.engines import Engine, Mechanism, engine_of
from strategies.layers.privacy.models import require_private, verify
from strategies.layers.privacy.settings import EngineName
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
    randomness
        Of the batches and the noise.
    engine
        How gradients are clipped.
    """

    noise_multiplier: float
    clip_norm: float
    randomness: Randomness
    engine: EngineName = "auto"
    steps: int = field(default=0, init=False)

    def __call__(
        self,
        model: nn.Module,
        examples: Examples,
        settings: TrainSettings,
        generator: torch.Generator,
        *,
        rates: Sequence[float] | None = None,
        adjust: GradientAdjustment | None = None,
        task: Task = CLASSIFICATION,
    ) -> TrainStats:
        """Train a model in place; see `strategies.client.training.local_train` for the parameters.

        `adjust` sees gradients that carry the noise already, so it must not look at data. So does the
        optimiser, of whatever kind, and its learning rates know nothing of the examples but their number. The
        loss is not reported: it would tell about the examples without noise.

        Raises
        ------
        BadInput
            If the model cannot be trained privately; nothing was changed then.
        """
        model.train()
        require_private(model, self.engine)
        parameters = [p for p in model.parameters() if p.requires_grad]
        steps = planned_steps(len(examples), settings) if rates is None else len(rates)
        rate = sample_rate(len(examples), settings)
        sampling, noise = self.randomness.after(generator), self.randomness.after(generator)
        optimizer = make_optimizer(parameters, settings)
        data = examples.to(parameters[0].device)
        verify(model, task, data, self.engine, generator)
        mechanism = Mechanism(self.noise_multiplier, self.clip_norm, rate * len(examples), noise)
        engine = engine_of(self.engine, model, optimizer, mechanism)
        try:
            for number, batch in enumerate(poisson_batches(len(data), rate, steps, sampling)):
                drawn = data.training_batch(batch, generator, alone=True) if len(batch) else None
                _clip(engine, task, drawn)
                engine.release()
                if rates is not None:
                    set_rate(optimizer, rates[number])
                _step(optimizer, parameters, adjust)
                self.steps += 1
        finally:
            engine.close()
        return TrainStats(steps, 0.0)


def _clip(engine: Engine, task: Task, drawn: Batch | None) -> None:
    """Hand a batch's losses to the engine; None: the batch is empty."""
    if drawn is None:
        engine.skip()
        return
    inputs, targets = drawn
    engine.backward(task.losses(task.forward(engine.model, inputs), targets))


def _step(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], adjust: GradientAdjustment | None
) -> None:
    """Adjust gradients that carry their noise, and take the step."""
    if adjust is not None:
        put_gradients(parameters, adjust(parameters, gradients_in(parameters)))
    optimizer.step()

"""Example-level private local training: DP-SGD.

Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, arXiv 1607.00133, Algorithm 1; each example
i is in the batch with probability q:

    g ← (1 / qn) ( Σ_i g_i · min(1, C / ‖g_i‖) + N(0, σ²C² I) )

Clipping, noise and scaling stand behind Opacus' interface (`strategies.layers.privacy.engines`), as does the
check of the model (`strategies.layers.privacy.models`); of clients side by side, which Opacus does not know,
`strategies.client.stackable` makes the clipped sums.

Differs from the paper: the sum is divided by the *expected* batch size qn, which says nothing about the batch
drawn, and a batch may be empty: then the step is noise alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.client.training import (
    HANDED_OVER,
    Batch,
    GradientAdjustment,
    Training,
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
from strategies.layers.privacy.noise import noised
from strategies.layers.privacy.settings import EngineName
from strategies.task import CLASSIFICATION, Task

_BESIDE_OTHERS = ("auto", "one-pass")
"""Engines whose clipped sums are computed beside those of other clients as well."""


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
        steps = planned_steps(len(examples), settings) if rates is None else len(rates)
        mechanism = PrivateSteps(
            self.noise_multiplier,
            self.clip_norm,
            sample_rate(len(examples), settings),
            len(examples),
            self.randomness.repeated_after(generator),
            self.randomness.repeated_after(generator),
            self.engine,
        )
        data = examples.to(next(p.device for p in model.parameters() if p.requires_grad))
        verify(model, task, data, self.engine, generator)
        if not steps:
            return TrainStats(0, 0.0)
        training = Training(model, data, settings, generator, steps, rates, adjust, task, mechanism=mechanism)
        stats = HANDED_OVER.get()(training)
        self.steps += stats.num_steps
        return stats


@final
@dataclass(eq=False)
class PrivateSteps:
    """The mechanism of one private training (see `strategies.client.training.ExampleMechanism`).

    Parameters
    ----------
    sample_rate
        q, the probability of each of `num_examples` examples to be in a batch.
    sampling, noise
        Return the stream of the batches and of the noise from its beginning.
    """

    noise_multiplier: float
    clip_norm: float
    sample_rate: float
    num_examples: int
    sampling: Callable[[], RandomStream]
    noise: Callable[[], RandomStream]
    engine: EngineName = "auto"
    _stream: RandomStream | None = field(default=None, init=False)

    @property
    def expected_batch_size(self) -> float:
        """Return qn."""
        return self.sample_rate * self.num_examples

    def batches(self, training: Training) -> Iterator[Batch | None]:
        """Draw the batch of each step; what is released afterwards has noise from its stream's beginning."""
        data = training.examples.to(training.device)
        self._stream = None
        for batch in poisson_batches(len(data), self.sample_rate, training.steps, self.sampling()):
            yield data.training_batch(batch, training.generator, alone=True) if len(batch) else None

    def release(self, clipped_sum: Tensor) -> Tensor:
        """Return the sum with noise, over the expected number of examples; shape [P]."""
        self._stream = self._stream or self.noise()
        private = noised(clipped_sum, self.noise_multiplier, self.clip_norm, self._stream)
        return private / self.expected_batch_size

    def alone(self, training: Training) -> str:
        """Return why the training goes by the engine alone."""
        if self.engine not in _BESIDE_OTHERS:
            return f'privacy.engine = "{self.engine}" computes the gradients of one client at a time'
        if training.precision != "float32":
            return "private training beside others is in float32 alone"
        return ""

    def run(self, training: Training) -> TrainStats:
        """Train the model in place with the engine."""
        parameters = training.parameters
        optimizer = make_optimizer(parameters, training.settings)
        mechanism = Mechanism(self.noise_multiplier, self.clip_norm, self.expected_batch_size, self.noise())
        engine = engine_of(self.engine, training.model, optimizer, mechanism)
        try:
            for number, drawn in enumerate(self.batches(training)):
                _clip(engine, training.task, drawn)
                engine.release()
                if training.rates is not None:
                    set_rate(optimizer, training.rates[number])
                _step(optimizer, parameters, training.adjust)
        finally:
            engine.close()
        return TrainStats(training.steps, 0.0)


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

"""Settings of local training: the section ``train`` of the run config."""

import math
from typing import Literal

from pydantic import Field

from strategies.core.settings import Settings

HardKind = Literal["none", "mislabelled", "rare"]
"""What makes an honest client's examples hard (see `strategies.client.hard_examples`)."""
_ROUNDING = 1e-9
"""Of a drop's period: a step that is as good as at the drop comes after it."""


class TrainSettings(Settings):
    """Local training on a client.

    Attributes
    ----------
    optimizer
        ``sgd``, ``adam``, ``adamw`` or ``rmsprop``; what it keeps, such as momentum, lasts one round.
    learning_rate
        Step size before any schedule or decay, above 0.
    momentum
        Of ``sgd``, in [0, 1); neutral 0. The other optimizers have no use for it.
    nesterov
        Whether the momentum of ``sgd`` is Nesterov's; neutral false.
    weight_decay
        L2 coefficient (decoupled in ``adamw``), at least 0; neutral 0.
    batch_size
        Examples per step, at least 1.
    local_epochs
        Passes over the client's examples per round, at least 1.
    local_steps
        Optimizer steps per round in place of epochs, at least 0; neutral 0, which counts epochs.
    lr_decay
        Factor on the learning rate per round, in (0, 1]; neutral 1.
    schedule
        How the learning rate falls over the run, from step to step: ``constant``, ``step`` or ``cosine``;
        neutral ``constant``.
    schedule_factor
        ``step``: factor on the learning rate at every drop, in (0, 1]; neutral 1.
    schedule_period
        ``step``: rounds from one drop to the next, at least 0; 0: a third of the schedule.
    schedule_final
        ``cosine``: share of the learning rate at which the schedule ends, in [0, 1]; neutral 1.
    schedule_rounds
        ``step`` and ``cosine``: rounds that the schedule lasts, at least 0; later ones are like its last;
        neutral 0: the run's rounds.
    warm_up
        Rounds, or a fraction of one, over which the learning rate rises to its full height, at least 0;
        neutral 0.
    max_gradient_norm
        Largest norm of a batch's gradient, at least 0; a longer one is scaled down to it; neutral 0, which
        clips nothing.
    isolation
        Groups of clients that are trained apart, each with a model of its own, at least 1; the run's model is
        their ensemble, and forgetting a client trains its group alone again. Neutral 1: one model for all.
    """

    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    learning_rate: float = Field(default=0.05, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: int = Field(default=32, ge=1)
    local_epochs: int = Field(default=2, ge=1)
    local_steps: int = Field(default=0, ge=0)
    lr_decay: float = Field(default=1.0, gt=0, le=1)
    schedule: Literal["constant", "step", "cosine"] = "constant"
    schedule_factor: float = Field(default=0.1, gt=0, le=1)
    schedule_period: float = Field(default=0.0, ge=0)
    schedule_final: float = Field(default=0.0, ge=0, le=1)
    schedule_rounds: int = Field(default=0, ge=0)
    warm_up: float = Field(default=0.0, ge=0)
    max_gradient_norm: float = Field(default=0.0, ge=0)
    isolation: int = Field(default=1, ge=1)

    def rates(self, server_round: int, rounds: int, num_steps: int) -> list[float]:
        """Return the learning rate of each local step of a round.

        A step is at t = round − 1 + step / num_steps, in rounds, and with R = `rounds` its rate is that of
        the settings times the factor of the schedule,

            step:    f^⌊t / period⌋
            cosine:  φ + (1 − φ) (1 + cos(π t / R)) / 2

        times min(1, (t + 1 / num_steps) / warm-up). Rounds after R are like the last one.

        Parameters
        ----------
        server_round
            From 1.
        rounds
            R, how many rounds the schedule lasts, at least 1.
        num_steps
            At least 0.

        Examples
        --------
        >>> TrainSettings(learning_rate=0.4, schedule="cosine").rates(2, 2, 1)
        [0.2]
        >>> TrainSettings(learning_rate=0.4, warm_up=1).rates(1, 5, 4)
        [0.1, 0.2, 0.30000000000000004, 0.4]
        """
        rate = self.learning_rate * self.lr_decay ** (server_round - 1)
        if self.schedule == "constant" and self.warm_up == 0:
            return [rate] * num_steps
        before = max(0, min(server_round, rounds) - 1)
        return [
            rate
            * self._scheduled(before + step / num_steps, rounds)
            * self._warmed_up(before + (step + 1) / num_steps)
            for step in range(num_steps)
        ]

    def _scheduled(self, position: float, rounds: int) -> float:
        if self.schedule == "step":
            period = self.schedule_period or rounds / 3
            return float(self.schedule_factor ** math.floor(position / period + _ROUNDING))
        if self.schedule == "cosine":
            return self.schedule_final + (1 - self.schedule_final) * _half_wave(position / rounds)
        return 1.0

    def _warmed_up(self, position: float) -> float:
        return min(1.0, position / self.warm_up) if self.warm_up > 0 else 1.0

    def in_round(self, server_round: int, rounds: int) -> "TrainSettings":
        """Return the settings with the learning rate of a round, from 1, as a single step of it has it."""
        (rate,) = self.rates(server_round, rounds, 1)
        return self.model_copy(update={"learning_rate": rate})


def _half_wave(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


class DistillationSettings(Settings):
    """How a student is trained.

    Attributes
    ----------
    epochs
        Passes over the inputs, at least 0; neutral 0: the student stays as it is.
    learning_rate
        Step size of SGD, above 0.
    batch_size
        Inputs per step, at least 1.
    temperature
        T, above 0.
    hard_label_weight
        λ, at least 0; neutral 0, which reads no label.
    """

    epochs: int = Field(default=10, ge=0)
    learning_rate: float = Field(default=0.01, gt=0)
    batch_size: int = Field(default=32, ge=1)
    temperature: float = Field(default=3.0, gt=0)
    hard_label_weight: float = Field(default=0.1, ge=0)

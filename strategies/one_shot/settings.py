"""Settings of one-shot federated learning, all of them keys of the section ``strategy``."""

from typing import Literal

from pydantic import Field

from strategies.core.settings import Settings


class OneShotSettings(Settings):
    """What ``one-shot`` reads.

    Attributes
    ----------
    ensemble
        What is averaged over the clients' models: ``probabilities`` or ``logits``.
    student_start
        Where the model begins into which the ensemble is distilled: ``initial``, the model that the clients
        were sent, or ``average``, the weighted average of theirs.
    distil_epochs
        Passes over the public data, at least 0; 0 leaves the student at its start.
    distil_learning_rate
        Step size of distillation, above 0.
    distil_batch_size
        Public examples per step, at least 1.
    distil_temperature
        T of distillation, above 0; neutral 1.
    """

    ensemble: Literal["probabilities", "logits"] = "probabilities"
    student_start: Literal["initial", "average"] = "initial"
    distil_epochs: int = Field(default=20, ge=0)
    distil_learning_rate: float = Field(default=0.05, gt=0)
    distil_batch_size: int = Field(default=32, ge=1)
    distil_temperature: float = Field(default=1.0, gt=0)

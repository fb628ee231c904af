"""Settings of local training: the section ``train`` of the run config."""

from typing import Literal

from pydantic import Field

from strategies.core.settings import Settings


class TrainSettings(Settings):
    """Local training on a client.

    Attributes
    ----------
    optimizer
        ``sgd``, ``adam`` or ``adamw``.
    learning_rate
        Step size in the first round, above 0.
    momentum
        Of ``sgd``, in [0, 1); neutral 0. The other optimizers have no use for it.
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
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float = Field(default=0.05, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: int = Field(default=32, ge=1)
    local_epochs: int = Field(default=2, ge=1)
    local_steps: int = Field(default=0, ge=0)
    lr_decay: float = Field(default=1.0, gt=0, le=1)

    def in_round(self, server_round: int) -> "TrainSettings":
        """Return the settings with the learning rate of a round, from 1."""
        rate = self.learning_rate * self.lr_decay ** (server_round - 1)
        return self.model_copy(update={"learning_rate": rate})

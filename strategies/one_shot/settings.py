"""Settings of one-shot federated learning, all of them keys of the section ``strategy``."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from strategies.core.errors import BadInput
from strategies.core.settings import Scalar, Settings
from strategies.core.traits import TaskNeed, Traits


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


def _check(flat: Mapping[str, Scalar]) -> None:
    if flat["run.rounds"] != 1:
        raise BadInput(
            f"run.rounds: given {flat['run.rounds']}, but one-shot has a single round; allowed 1 "
            "(train.local-epochs says how long clients train in it)"
        )


def _task_need(flat: Mapping[str, Scalar]) -> TaskNeed:
    if flat["strategy.ensemble"] == "probabilities":
        instead = 'strategy.ensemble = "logits" averages outputs'
        return TaskNeed("labels", "averages probabilities of classes", instead)
    return TaskNeed("vectors", "averages one vector of outputs per example")


TRAITS = (
    Traits(
        "one-shot",
        OneShotSettings,
        check=_check,
        task_need=_task_need,
        averages=False,
        hidden="none",
        single_round=True,
        public_data="distils on public data",
        only_retraining="the model learned from what all of the ensemble answered, and is no sum of updates",
        page="docs/one-shot.md",
    ),
)

"""Which round's model a run keeps, and when its training ends: rounds are judged on data of their own.

The examples are a part of the server's test data (``data.validation-share``) that nothing else is measured
on, so that the choice does not flatter the figures of a report. They are the server's own: with differential
privacy the choice costs no ε, as it follows from models that were released and from data of no client.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from app.config.settings import RunSettings
from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.figures import Figures

VALIDATION = "validation"
"""Begins the names of the figures that rounds are judged by, in ``metrics.jsonl``."""
LOSS = "loss"
JUDGED = "judged"
"""In a checkpoint and in a summary: what was found of the rounds so far."""


@dataclass(frozen=True)
class Criterion:
    """The figure that rounds are judged by, and its direction."""

    name: str
    higher_is_better: bool

    @property
    def key(self) -> str:
        """Its name in ``metrics.jsonl``."""
        return f"{VALIDATION}-{self.name}"

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether a value improves on the best so far; of equal ones the first stays."""
        if not math.isfinite(value):
            return False
        return than is None or (value > than if self.higher_is_better else value < than)


def criterion_of(settings: RunSettings, figures: Figures) -> Criterion:
    """Return the criterion that ``run.keep-by`` names.

    Raises
    ------
    BadInput
        If the task has no such figure, or it is a table.
    """
    return criterion_named(settings.keep_by or figures.headline, figures, "run.keep-by")


def criterion_named(name: str, figures: Figures, key: str) -> Criterion:
    """Return the criterion of a name, which the setting `key` gave.

    Raises
    ------
    BadInput
        If the task has no such figure, or it is a table.
    """
    numbers = (name for name in figures.names if figures.is_one_number(name))
    allowed = tuple(dict.fromkeys((figures.task.figure, LOSS, *numbers)))
    if name not in allowed:
        raise BadInput(f"{key}: given {shown(name)}, the task ({figures.task.name}) has {', '.join(allowed)}")
    if name == LOSS:
        return Criterion(name, higher_is_better=False)
    return Criterion(name, replace(figures, headline=name).higher_is_better)


@final
class Judge:
    """Judges the rounds of a training.

    Attributes
    ----------
    best, value : int, float or None
        The best round so far, 0 if none was judged, and its figure.
    """

    def __init__(self, settings: RunSettings, criterion: Criterion) -> None:
        self._settings = settings
        self.criterion = criterion
        self.best = 0
        self.value: float | None = None

    def judge(self, server_round: int, metrics: Mapping[str, float]) -> bool:
        """Judge a round by its figures; say whether it is the best so far. One without figures is not."""
        value = metrics.get(self.criterion.key)
        if value is None or not self.criterion.is_better(value, self.value):
            return False
        self.best, self.value = server_round, value
        return True

    def ends(self, server_round: int) -> bool:
        """Whether training ends with a round, as there was no improvement for long enough."""
        stop = self._settings.stop
        return bool(stop and self.best) and server_round - self.best >= stop

    def chosen(self, server_round: int) -> int:
        """Return the round whose model is the run's, when `server_round` was the last."""
        return self.best if self._settings.keep == "best" and self.best else server_round

    def to_json(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"round": self.best, "value": self.value}

    def restore(self, document: Mapping[str, Any]) -> None:
        """Take up what `to_json` returned."""
        self.best, self.value = int(document["round"]), document["value"]

    def described(self, server_round: int, num_examples: int) -> dict[str, Any]:
        """Return the choice as a summary states it, when `server_round` was the last."""
        return {
            "keep": self._settings.keep,
            "by": self.criterion.key,
            "round": self.chosen(server_round),
            "trained": server_round,
            "best": self.best,
            "value": self.value,
            "validation-examples": num_examples,
        }

"""The figure that a run is judged by, as its summary says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.report import wording

PLACES = {"server": "test", "clients": "client"}
"""Where a model was measured -> what the names of its figures begin with in ``metrics.jsonl``."""


@dataclass(frozen=True)
class Headline:
    """The figure that a run is judged by: its `name`, its `key` in ``metrics.jsonl``, and its direction."""

    name: str
    key: str
    higher_is_better: bool

    @property
    def words(self) -> str:
        """The name for people."""
        return wording.figure_name(self.name)


def headline_of(summary: Mapping[str, Any]) -> Headline | None:
    """Return the headline of a finished run, on the server's test data if it has some; None if unknown."""
    evaluations = summary.get("evaluations") or {}
    for place, begins in PLACES.items():
        if found := evaluations.get(place):
            name = str(found["headline"])
            return Headline(name, f"{begins}-{name}", bool(found["higher-is-better"]))
    return None


def is_scored(summary: Mapping[str, Any]) -> bool:
    """Whether a run's task is judged by scores in place of accuracies."""
    evaluations = (summary.get("evaluations") or {}).values()
    return any("accuracy" not in found["figures"] for found in evaluations)


def shown_figures(values: Mapping[str, Any]) -> tuple[str, str]:
    """Return the keys of the figure that a round is judged by, and of its loss; empty where it has none.

    >>> shown_figures({"train-loss": 1.0, "test-r2": 0.5, "test-loss": 2.0})
    ('test-r2', 'test-loss')
    >>> shown_figures({"train-loss": 1.0})
    ('', 'train-loss')
    """
    begins = "test-" if any(key.startswith("test-") for key in values) else "client-"
    loss = f"{begins}loss"
    own = [key for key in values if key.startswith(begins) and key != loss]
    first = ["personal-accuracy"] if "personal-accuracy" in values else []
    losses = [key for key in (loss, "train-loss") if key in values]
    return next(iter(first + own), ""), next(iter(losses), "")

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

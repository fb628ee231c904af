"""What a tracker is told, and the trackers by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from strategies.core.settings import Scalar


@dataclass(frozen=True)
class Tracked:
    """A piece of work that is tracked: a run, or a forgetting, an audit or a comparison on it.

    Parameters
    ----------
    id
        Always the same for the same work, so that a resumed run goes on in the same place; letters, digits
        and hyphens.
    name, kind
        As people read them; `kind` is ``train``, ``forget``, ``audit`` or ``compare``.
    folder
        Where a tracker that keeps files keeps them, for the run and all work on it.
    parent
        The `id` of the run that this is work on; empty for a run.
    config
        The run config, without what names single clients or places on a disk.
    completed
        Steps that were done before, when the work is resumed; figures of later ones are given again.
    """

    id: str
    name: str
    kind: str
    folder: Path
    parent: str = ""
    config: Mapping[str, Scalar] = field(default_factory=dict)
    completed: int = 0


class Tracker(Protocol):
    """Keeps the figures of one piece of work. Made with it; whatever it raises ends the tracking alone."""

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the figures of a step, from 1."""

    def end(self, outcome: str, summary: Mapping[str, Scalar]) -> None:
        """Keep the results, and finish; `outcome` is ``finished``, ``interrupted`` or ``failed``."""


@dataclass(frozen=True)
class _Kind:
    library: str
    module: str
    title: str

    def make(self, tracked: Tracked) -> Tracker:
        made: Tracker = import_module(self.module).begin(tracked)
        return made


_KINDS: Mapping[str, _Kind] = {
    "tensorboard": _Kind("tensorboard", "app.tracking.tensorboard", "TensorBoard"),
    "mlflow": _Kind("mlflow", "app.tracking.mlflow", "MLflow"),
    "wandb": _Kind("wandb", "app.tracking.wandb", "Weights & Biases"),
}


def maker(name: str) -> Callable[[Tracked], Tracker] | None:
    """Return what makes the tracker with this name; None if its library is not installed."""
    kind = _KINDS[name]
    return kind.make if find_spec(kind.library) is not None else None


def title(name: str) -> str:
    """Return the name of a tracker for people."""
    return _KINDS[name].title

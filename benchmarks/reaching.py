"""Training until a test accuracy is reached, and what that took: rounds, bytes, simulated seconds."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from app.config.run_config import RunConfig
from app.workflows.observer import Observer, Quiet
from app.workflows.training import train
from benchmarks.figures import each_figure, mean_std
from benchmarks.inline import InlineGrid
from benchmarks.options import DataOptions, SeedsOptions, separate_keys
from strategies.runs.folder import RunFolder

Contenders = Mapping[str, Sequence[str]]
"""What each contender sets, as keys of the run config, by its name."""


class RaceOptions(DataOptions, SeedsOptions):
    """Options of a benchmark that races to an accuracy: all of MNIST over ten clients, and a small CNN."""

    goal: float = 97.0
    """Test accuracy in percent."""
    rounds: int = 100
    """After which a run is given up."""
    overrides: str = ""
    """Further keys of the run config, as ``section.key=value`` with a semicolon between them."""

    def keys(self, *own: str) -> list[str]:
        """Return what all contenders have in common: these settings, a benchmark's own, the overrides."""
        return [
            *("data.name=mnist", "data.public=0", "data.clients=10", f"data.root={self.data_root}"),
            *("model.width=4", "model.hidden=32", "train.local-steps=10", f"run.rounds={self.rounds}"),
            *own,
            *separate_keys(self.overrides),
        ]


class _Reached(Exception):
    """Ends a training that has reached its goal."""


class _Watcher(Quiet):
    """Ends a training once it reaches a test accuracy, in percent."""

    def __init__(self, goal: float) -> None:
        self._goal = goal

    def advance(self, message: str = "", values: Mapping[str, float] | None = None) -> None:
        """Look at the accuracy after a round."""
        if (values or {}).get("test-accuracy", 0.0) >= self._goal:
            raise _Reached


@dataclass(frozen=True)
class Reached:
    """What a training took."""

    reached: bool
    """Whether it reached the goal; otherwise the figures are those of all its rounds."""
    rounds: int
    """Up to the goal, the round that reached it included."""
    bytes_up: int
    bytes_down: int
    """Of these rounds, over all clients."""
    simulated_seconds: float
    """Of these rounds; 0 without a clock."""
    accuracy: float
    """The best up to then, in percent."""

    def costs(self) -> dict[str, float]:
        """Return what it took, by name."""
        return {
            "rounds": self.rounds,
            "bytes-up": self.bytes_up,
            "bytes": self.bytes_up + self.bytes_down,
            "simulated-seconds": self.simulated_seconds,
        }


def inline_rounds(keys: Sequence[str], observer: Observer | None = None) -> list[dict[str, Any]]:
    """Train with all clients in this process, until an observer has seen enough; return the rounds.

    Parameters
    ----------
    keys
        Of the run config, as ``section.key=value``.
    observer
        Told of each round.
    """
    with tempfile.TemporaryDirectory() as home:
        overrides = [*keys, f"run.home={home}", "run.name=measured", "log.enabled=false"]
        config = RunConfig().with_overrides(overrides)
        with suppress(_Reached):
            train(config, observer, InlineGrid(config))
        return RunFolder.open("measured", config.run.home_path).read_metrics()


def reach(keys: Sequence[str], goal: float) -> Reached:
    """Train until the goal, a test accuracy in percent, or the last round."""
    lines = inline_rounds(keys, _Watcher(goal))
    best = max(float(line.get("test-accuracy", 0.0)) for line in lines)
    return Reached(
        best >= goal,
        len(lines),
        sum(int(line["bytes-up"]) for line in lines),
        sum(int(line["bytes-down"]) for line in lines),
        math.fsum(float(line.get("simulated-seconds", 0.0)) for line in lines),
        best,
    )


def race(
    contenders: Contenders, base: str, options: RaceOptions, observer: Observer, place: str = ""
) -> dict[str, Any]:
    """Have each contender train to the goal with each seed; return what `compared` makes of it.

    Parameters
    ----------
    contenders
        All keys of each.
    base
        The contender that the others are compared with.
    options
        The goal and the seeds.
    observer
        Told of each run.
    place
        What the runs have in common, for the observer.
    """
    measured: dict[str, list[Reached]] = {name: [] for name in contenders}
    for name, keys in contenders.items():
        for seed in range(options.seeds):
            measured[name].append(reach([*keys, f"run.seed={seed}"], options.goal))
            told = ", ".join(filter(None, (place, name, f"seed {seed}")))
            observer.advance(told, vars(measured[name][-1]))
    return compared(measured, base)


def compared(measured: Mapping[str, Sequence[Reached]], base: str) -> dict[str, Any]:
    """Return each contender's figures over the seeds, and how many times less it took than the base.

    Ratios are taken per seed, of runs that both reached the goal; a contender that did not, in some seed, has
    no ratio.

    Parameters
    ----------
    measured
        By contender, one for each seed in the same order.
    base
        The contender that the others are compared with.
    """
    found: dict[str, Any] = {}
    least = [run.costs() for run in measured[base]]
    for name, runs in measured.items():
        costs = [run.costs() for run in runs]
        found[name] = {
            "reached": sum(run.reached for run in runs),
            "accuracy": mean_std(run.accuracy for run in runs),
            **each_figure(costs),
        }
        if all(run.reached for run in (*runs, *measured[base])):
            found[name]["times-less"] = {
                key: mean_std(b[key] / c[key] for b, c in zip(least, costs, strict=True))
                for key in costs[0]
                if all(cost[key] for cost in costs)
            }
    return found

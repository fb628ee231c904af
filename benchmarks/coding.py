"""Gradient descent on a simulated clock with slow clients: coded, waiting for all, or ignoring the slowest.

Every client has two classes, so whoever is ignored takes classes along. A coded client works on s + 1 parts,
and its time counts as often. Speeds are drawn once, so the slow clients are the same in every round.
"""

from collections.abc import Sequence
from typing import Any

from app.workflows.observer import Observer
from benchmarks.figures import pooled, spread
from benchmarks.options import DigitsOptions, SeedsOptions
from benchmarks.reaching import inline_rounds

_RUN = (
    "data.public=0",
    "data.partition=shards",
    "data.shards-per-client=2",
    "model.name=mlp",
    "run.workers=1",
    "run.evaluate-every=1000000",
)
_RATE = "train.learning-rate=0.1"
"""At 0.5 the loss rises and falls, and differences in the last bit of a sum grow to other models."""


class Options(DigitsOptions, SeedsOptions):
    """Options of the benchmark."""

    rounds: int = 100
    """Steps."""
    speeds: str = "pareto:1.2"
    """``selection.speeds``."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return accuracy in percent and simulated seconds after as many steps, by data set."""
    data_sets = options.data_sets()
    observer.phase("coding", len(data_sets) * options.seeds)
    results: dict[str, Any] = {"settings": {**options.settings("rounds", "seeds", "speeds"), "clients": 10}}
    for name, data in data_sets.items():
        keys = [*_RUN, *data, f"run.rounds={options.rounds}", f"selection.speeds={options.speeds}"]
        tables = []
        for seed in range(options.seeds):
            tables.append(_one([*keys, f"run.seed={seed}"]))
            observer.advance(f"{name}, seed {seed}")
        results[name] = pooled("server", tables, spread)
    return results


def _one(keys: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the figures of one seed: ten clients, of which the slowest one or two are waited for or not."""
    coded = (*keys, _RATE, "data.clients=10", "strategy.name=coded-gd")
    return {
        "waits for all": _figures([*coded, "strategy.stragglers=0"], 1),
        "ignores the slowest two": _figures([*_ignoring(keys), *_first(8)], 1),
        **{
            f"coded, s = {s}": _figures([*coded, f"strategy.stragglers={s}", *_first(10 - s)], s + 1)
            for s in (1, 2)
        },
    }


def _first(count: int) -> tuple[str, str]:
    """Return the keys that ask all ten clients and take the first so many answers."""
    return f"selection.fraction={count / 10}", f"selection.over-selection={10 / count}"


def _ignoring(keys: Sequence[str]) -> list[str]:
    """Return full-batch gradient descent by FedAvg: one step on all of a client's data."""
    whole = ("train.local-steps=1", "train.batch-size=100000", "train.momentum=0.0", _RATE)
    return [*keys, "data.clients=10", "strategy.name=fedavg", *whole]


def _figures(keys: Sequence[str], parts: int) -> dict[str, float]:
    lines = inline_rounds(keys)
    return {
        "accuracy": float(lines[-1]["test-accuracy"]),
        "loss": float(lines[-1]["test-loss"]),
        "simulated seconds": parts * sum(float(line["simulated-seconds"]) for line in lines),
    }

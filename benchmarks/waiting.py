"""Simulated time to an accuracy on MNIST with slow clients: rounds that wait for them, steps that do not."""

from collections.abc import Mapping
from typing import Any

from app.workflows.observer import Observer
from benchmarks.options import chosen
from benchmarks.reaching import Contenders, RaceOptions, race

PLAIN = "fedavg"
CONTENDERS: Contenders = {
    PLAIN: (),
    "fedavg, over-selection": ("selection.fraction=0.7", "selection.over-selection=1.4"),
    "fedbuff": ("strategy.name=fedbuff", "strategy.buffer-size=5"),
    "fedasync": ("strategy.name=fedasync",),
}
"""What each contender sets: a round of `fedavg` waits for all, or for the first seven of ten."""

_STEPS: Mapping[str, int] = {"fedasync": 10, "fedbuff": 2}
"""How many steps bring as many updates as a round of ten clients."""


class Options(RaceOptions):
    """Options of the benchmark; rounds are those of ten updates."""

    rounds: int = 60
    contenders: str = ""
    """Names of those to measure beside ``fedavg``, with semicolons between them; empty: all."""
    speeds: str = "pareto:1.2"
    """How the clients' speeds are drawn (``selection.speeds``)."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return rounds, bytes and simulated seconds to the goal, and how many times less than `fedavg`."""
    common = options.keys(f"selection.speeds={options.speeds}")
    racing = {
        name: (*common, *CONTENDERS[name], f"run.rounds={options.rounds * _STEPS.get(name, 1)}")
        for name in chosen("contenders", options.contenders, CONTENDERS, ";", PLAIN)
    }
    observer.phase("async", len(racing) * options.seeds)
    found = race(racing, PLAIN, options, observer)
    return {**options.settings("goal", "speeds", "seeds"), "contenders": found}

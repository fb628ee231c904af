"""Simulated time to an accuracy on MNIST with slow clients: rounds that wait for them, steps that do not."""

from collections.abc import Mapping
from typing import Any

from app.workflows.observer import Observer, Quiet
from benchmarks.jobs import machine
from benchmarks.reaching import MNIST_CNN, Contenders, named, race

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


def run(  # noqa: PLR0913 (each is an option of the command line)
    observer: Observer | None = None,
    *,
    data_root: str = "",
    contenders: str = "",
    speeds: str = "pareto:1.2",
    seeds: int = 3,
    goal: float = 97.0,
    rounds: int = 60,
    overrides: str = "",
) -> dict[str, Any]:
    """Return rounds, bytes and simulated seconds to the goal by contender, and how many times less they were.

    Parameters
    ----------
    observer
        Told of each run.
    data_root
        Where torchvision's MNIST lies (``data.root``).
    contenders
        Names of those to measure beside ``fedavg``, with semicolons between them; empty: all.
    speeds
        How the clients' speeds are drawn (``selection.speeds``).
    seeds
        Number of seeds, from 0.
    goal
        Test accuracy in percent.
    rounds
        Of ten updates, after which a run is given up.
    overrides
        Further keys of the run config, as ``section.key=value`` with a semicolon between them.
    """
    common = (
        *(*MNIST_CNN, f"data.root={data_root}", f"selection.speeds={speeds}"),
        *(key for key in overrides.split(";") if key),
    )
    racing = {
        name: (*common, *CONTENDERS[name], f"run.rounds={rounds * _STEPS.get(name, 1)}")
        for name in named("contenders", contenders, CONTENDERS, PLAIN)
    }
    watcher = observer or Quiet()
    watcher.phase("async", len(racing) * seeds)
    found = race(racing, PLAIN, seeds, goal, watcher)
    return {"machine": machine(), "goal": goal, "speeds": speeds, "seeds": seeds, "contenders": found}

"""Rounds and simulated time to an accuracy on MNIST, Dirichlet 0.1, by how a round's clients are chosen."""

from typing import Any

from app.workflows.observer import Observer, Quiet
from benchmarks.jobs import machine
from benchmarks.reaching import MNIST_CNN, Contenders, named, race

PLAIN = "uniform"
METHODS: Contenders = {
    PLAIN: (),
    "power-of-choice": ("selection.method=power-of-choice", "selection.candidates=5"),
    "oort": ("selection.method=oort",),
    "budgeted": ("selection.method=budgeted", "selection.budget=20"),
}
"""What each contender sets; three of ten clients take part in a round."""


def run(
    observer: Observer | None = None,
    *,
    data_root: str = "",
    methods: str = "",
    seeds: int = 3,
    goal: float = 95.0,
    rounds: int = 120,
    overrides: str = "",
) -> dict[str, Any]:
    """Return rounds, bytes and simulated seconds to the goal, and how many times less than uniformly.

    Parameters
    ----------
    observer
        Told of each run.
    data_root
        Where torchvision's MNIST lies (``data.root``).
    methods
        Names of those to measure beside ``uniform``, with semicolons between them; empty: all.
    seeds
        Number of seeds, from 0.
    goal
        Test accuracy in percent.
    rounds
        After which a run is given up.
    overrides
        Further keys of the run config, as ``section.key=value`` with a semicolon between them.
    """
    common = (
        *(*MNIST_CNN, f"data.root={data_root}", "data.partition=dirichlet", "data.alpha=0.1"),
        *("selection.fraction=0.3", "selection.speeds=pareto:1.2", f"run.rounds={rounds}"),
        *(key for key in overrides.split(";") if key),
    )
    contenders = {name: (*common, *METHODS[name]) for name in named("methods", methods, METHODS, PLAIN)}
    watcher = observer or Quiet()
    watcher.phase("selection", len(contenders) * seeds)
    found = race(contenders, PLAIN, seeds, goal, watcher)
    return {"machine": machine(), "goal": goal, "seeds": seeds, "methods": found}

"""Rounds and simulated time to an accuracy on MNIST, Dirichlet 0.1, by how a round's clients are chosen."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.workflows.observer import Observer, Quiet
from benchmarks.jobs import machine
from benchmarks.reaching import Reached, compared, reach

PLAIN = "uniform"
METHODS: Mapping[str, Sequence[str]] = {
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
    names = [name for name in METHODS if not methods or name in {PLAIN, *methods.split(";")}]
    common = [
        *("data.name=mnist", f"data.root={data_root}", "data.public=0", "data.clients=10"),
        *("data.partition=dirichlet", "data.alpha=0.1", "selection.fraction=0.3"),
        *("model.width=4", "model.hidden=32", "train.local-steps=10", "selection.speeds=pareto:1.2"),
        *(f"run.rounds={rounds}", *(key for key in overrides.split(";") if key)),
    ]
    watcher = observer or Quiet()
    watcher.phase("selection", len(names) * seeds)
    measured: dict[str, list[Reached]] = {}
    for name in names:
        measured[name] = []
        for seed in range(seeds):
            measured[name].append(reach([*common, *METHODS[name], f"run.seed={seed}"], goal))
            watcher.advance(f"{name}, seed {seed}", vars(measured[name][-1]))
    return {"machine": machine(), "goal": goal, "seeds": seeds, "methods": compared(measured, PLAIN)}

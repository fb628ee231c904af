"""Rounds and simulated time to an accuracy on MNIST, Dirichlet 0.1, by how a round's clients are chosen."""

from typing import Any

from app.workflows.observer import Observer
from benchmarks.options import chosen
from benchmarks.reaching import Contenders, RaceOptions, race

PLAIN = "uniform"
METHODS: Contenders = {
    PLAIN: (),
    "power-of-choice": ("selection.method=power-of-choice", "selection.candidates=5"),
    "oort": ("selection.method=oort",),
    "budgeted": ("selection.method=budgeted", "selection.budget=20"),
}
"""What each contender sets; three of ten clients take part in a round."""


_COMMON = (
    *("data.partition=dirichlet", "data.alpha=0.1"),
    *("selection.fraction=0.3", "selection.speeds=pareto:1.2"),
)


class Options(RaceOptions):
    """Options of the benchmark."""

    goal: float = 95.0
    rounds: int = 120
    methods: str = ""
    """Names of those to measure beside ``uniform``, with semicolons between them; empty: all."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return rounds, bytes and simulated seconds to the goal, and how many times less than uniformly."""
    names = chosen("methods", options.methods, METHODS, ";", PLAIN)
    contenders = {name: (*options.keys(*_COMMON), *METHODS[name]) for name in names}
    observer.phase("selection", len(contenders) * options.seeds)
    found = race(contenders, PLAIN, options, observer)
    return {**options.settings("goal", "seeds"), "methods": found}

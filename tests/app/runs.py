"""What tests of whole runs have in common: the model as one vector, and a server that dies or is killed."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.context import ForkProcess

from torch import Tensor

from app.simulation import pool
from app.simulation.launch import launch
from app.workflows.observer import Quiet
from strategies.core import wire
from strategies.runs.folder import RunFolder


def flat_of(state: wire.State) -> Tensor:
    """Return parameters as one vector, shape [P]."""
    return wire.Layout.of(state).flatten(state)


def flat_model(folder: RunFolder) -> Tensor:
    """Return the final parameters of a run, shape [P]."""
    return flat_of(folder.read_model())


class Stopped(Exception):
    """Ends a run as a kill would: nothing is written afterwards."""


class StopAfter(Quiet):
    """Ends a run after some rounds.

    Parameters
    ----------
    rounds
        How many are completed.
    """

    def __init__(self, rounds: int) -> None:
        self._left = rounds

    def advance(self, message: str = "", values: Mapping[str, float] | None = None) -> None:
        """Count down."""
        self._left -= 1
        if not self._left:
            raise Stopped


def in_a_process(work: Callable[[], object]) -> ForkProcess:
    """Start work in a fork of this process; the workers of its simulations are forks of that one.

    So both have what is patched here or by the work, neither imports anything anew, and the process can be
    killed.
    """
    process = get_context("fork").Process(target=_working, args=(work,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which are not used in the fork
        process.start()
    return process


def _working(work: Callable[[], object]) -> None:
    pool.launch = lambda setup: launch(replace(setup, forks=True))
    work()

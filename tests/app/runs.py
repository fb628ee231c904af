"""What tests of whole runs have in common: the model as one vector, and a server that dies."""

from collections.abc import Mapping

from torch import Tensor

from app.workflows.observer import Quiet
from strategies.core import wire
from strategies.runs.folder import RunFolder


def flat_model(folder: RunFolder) -> Tensor:
    """Return the final parameters of a run, shape [P]."""
    state = folder.read_model()
    return wire.Layout.of(state).flatten(state)


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

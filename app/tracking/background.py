"""Runs a tracker in a thread of its own, which no training waits for."""

import queue
import threading
from collections.abc import Callable, Mapping

from app.tracking.tracker import Tracked, Tracker
from strategies.core.settings import Scalar

_MOST_WAITING = 1000
"""Steps that wait for a slow tracker; the figures of further ones are left out."""
_PATIENCE = 60.0
"""Seconds that the end of the work waits for its tracker."""
_LONGEST = 200

Job = Callable[[Tracker], None]


class Background:
    """A tracker at work. Whatever goes wrong in it is kept as `problem`, a sentence, and ends the tracking.

    Parameters
    ----------
    make, tracked
        What makes the tracker, and of what; it is made in the thread, as its libraries take seconds.
    most_waiting, patience
        Steps that wait for it, and seconds that `end` waits.
    """

    def __init__(
        self,
        make: Callable[[Tracked], Tracker],
        tracked: Tracked,
        most_waiting: int = _MOST_WAITING,
        patience: float = _PATIENCE,
    ) -> None:
        self.problem = ""
        self._make, self._tracked = make, tracked
        self._patience = patience
        self._jobs: queue.Queue[Job | None] = queue.Queue(most_waiting)
        self._left_out = 0
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Hand on the figures of a step, without waiting."""
        given = dict(values)
        self._put(lambda tracker: tracker.figures(step, given))

    def end(self, outcome: str, summary: Mapping[str, Scalar]) -> None:
        """Hand on the results, and wait until the tracker is done, or for its patience."""
        given = dict(summary)
        self._put(lambda tracker: tracker.end(outcome, given), self._patience)
        self._put(None, self._patience)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self.problem = self.problem or f"it was not done {self._patience:g} s after the end"
        elif self._left_out:
            self.problem = (
                self.problem or f"it was too slow, the figures of {self._left_out} steps are left out"
            )

    def _put(self, job: Job | None, patience: float = 0.0) -> None:
        try:
            self._jobs.put(job, block=patience > 0, timeout=patience or None)
        except queue.Full:
            self._left_out += 1

    def _work(self) -> None:
        tracker: Tracker | None = None
        try:
            tracker = self._make(self._tracked)
        except Exception as error:  # noqa: BLE001  # a library's, of any kind: the run goes on without it
            self.problem = _said(error)
        while (job := self._jobs.get()) is not None:
            if tracker is None:
                continue  # Nobody may wait for room in the queue
            try:
                job(tracker)
            except Exception as error:  # noqa: BLE001  # as above
                self.problem, tracker = _said(error), None


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:_LONGEST]

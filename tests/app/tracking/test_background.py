"""app/tracking/background.py: a tracker in a thread of its own, whatever it does."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path

from app.tracking.background import Background
from app.tracking.tracker import Tracked, Tracker
from strategies.core.settings import Scalar

WORK = Tracked("1", "study", "train", Path("track"))


class Kept:
    """Keeps in memory what it is told, once it may."""

    def __init__(self, may: threading.Event | None = None) -> None:
        self.told: list[tuple[object, object]] = []
        self._may = may or threading.Event()
        if may is None:
            self._may.set()

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        self._may.wait()
        self.told.append((step, dict(values)))

    def end(self, outcome: str, summary: Mapping[str, Scalar]) -> None:
        self.told.append((outcome, dict(summary)))


def test_all_is_handed_on_in_its_order() -> None:
    kept = Kept()
    tracker = Background(lambda _: kept, WORK)
    values = {"loss": 1.0}
    for step in (1, 2):
        tracker.figures(step, values)
        values["loss"] = 0.5  # What was handed on stays as it was
    tracker.end("finished", {"report": "r.html"})
    assert kept.told == [(1, {"loss": 1.0}), (2, {"loss": 0.5}), ("finished", {"report": "r.html"})]
    assert not tracker.problem


def test_nobody_waits_for_a_slow_one_and_what_is_left_out_is_said() -> None:
    may = threading.Event()
    kept = Kept(may)
    tracker = Background(lambda _: kept, WORK, most_waiting=3)
    began = time.monotonic()
    for step in range(1, 101):
        tracker.figures(step, {})
    assert time.monotonic() - began < 1
    may.set()
    tracker.end("finished", {})
    steps = [step for step, _ in kept.told[:-1]]
    assert 3 <= len(steps) <= 4
    assert tracker.problem == f"it was too slow, the figures of {100 - len(steps)} steps are left out"


def test_one_that_hangs_is_left_alone() -> None:
    may = threading.Event()
    tracker = Background(lambda _: Kept(may), WORK, most_waiting=2, patience=0.05)
    for step in range(5):
        tracker.figures(step, {})
    began = time.monotonic()
    tracker.end("finished", {})
    assert time.monotonic() - began < 5
    assert tracker.problem == "it was not done 0.05 s after the end"
    may.set()


def test_whatever_it_raises_is_one_line() -> None:
    def unreachable(_: Tracked) -> Tracker:
        raise ConnectionError("no way to host\nand a long story")

    tracker = Background(unreachable, WORK, most_waiting=1)
    for step in range(5):
        tracker.figures(step, {})
    tracker.end("finished", {})
    assert tracker.problem == "no way to host"

    class Full(Kept):
        def figures(self, step: int, values: Mapping[str, float]) -> None:
            raise OSError(28, "No space left on device")

    full = Full()
    tracker = Background(lambda _: full, WORK)
    tracker.figures(1, {})
    tracker.figures(2, {})
    tracker.end("finished", {})
    assert tracker.problem == "[Errno 28] No space left on device"
    assert not full.told

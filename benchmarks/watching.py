"""What watching and tracking cost a run, and how far its page lags behind.

One run is trained with all trackers on, while ``lethe watch`` serves its page to a browser's stand-in that
asks as often as the page does. Shares are of the very run: processor seconds of the page and of each
tracker's thread by the seconds of the rounds, so that both see the machine in the same state. The trackers'
libraries take seconds to import, once per run; they are given beside it.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.request import urlopen

from app.config.run_config import RunConfig
from app.config.settings import TRACKERS
from app.tracking import tracker as trackers
from app.tracking.tracker import Tracked, Tracker
from app.workflows import train
from app.workflows.observer import Observer
from benchmarks.figures import stopped
from benchmarks.options import BenchmarkOptions, chosen
from strategies.core.settings import Scalar
from strategies.runs.home import MARKER
from strategies.runs.journal import Journal, journals

NAME = "watched"
_EVERY = 0.5
"""Seconds between two questions of the page."""
_EVENTS = 2000


class Options(BenchmarkOptions):
    """Options of the benchmark."""

    rounds: int = 30
    clients: int = 10
    workers: int = 1
    track: str = ""
    """Trackers, with commas between them; empty: all."""


class _Timed:
    """A tracker that notes its processor seconds, of its thread alone: to begin, per round, to end."""

    def __init__(self, inner: Tracker, took: dict[str, list[float]]) -> None:
        self._inner, self._took = inner, took

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        began = time.thread_time()
        self._inner.figures(step, values)
        self._took["round"].append(time.thread_time() - began)

    def end(self, outcome: str, summary: Mapping[str, Scalar]) -> None:
        began = time.thread_time()
        self._inner.end(outcome, summary)
        self._took["end"].append(time.thread_time() - began)


class _Trackers:
    """Makes trackers that are timed, by name."""

    def __init__(self) -> None:
        self.took: dict[str, dict[str, list[float]]] = {}
        self._make = trackers.maker

    def maker(self, name: str) -> Any:
        make, took = self._make(name), self.took.setdefault(name, {"begin": [], "round": [], "end": []})

        def timed(tracked: Tracked) -> Tracker:
            assert make is not None, f"{name} is not installed"
            began = time.thread_time()
            inner = make(tracked)
            took["begin"].append(time.thread_time() - began)
            return _Timed(inner, took)

        return timed

    def rows(self, round_seconds: float) -> list[dict[str, Any]]:
        """Return a row per tracker; its share is what it takes of a round."""
        return [
            {
                "tracker": name,
                "share-percent": 100 * statistics.fmean(took["round"]) / round_seconds,
                "round-ms": 1000 * statistics.fmean(took["round"]),
                "begin-seconds": sum(took["begin"]),
                "end-seconds": sum(took["end"]),
            }
            for name, took in self.took.items()
        ]


class _Browser(threading.Thread):
    """Starts ``lethe watch`` once the run is there, and asks for what is new until it is told to stop."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.arrived: dict[int, float] = {}
        self.start_seconds, self.seconds, self.wall = 0.0, 0.0, 0.0
        self.done = threading.Event()
        self._folder = folder

    def run(self) -> None:
        """Ask as the page does."""
        while not (self._folder / MARKER).exists():
            time.sleep(0.01)
        arguments = ["watch", str(self._folder), "--no-open", "--json"]
        command = [sys.executable, "-c", "from app.cli import main; main()", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                url = _told(process)["url"]
                self.start_seconds, began = _processor_seconds(process.pid), time.monotonic()
                self._ask(url)
                self.wall = time.monotonic() - began
                self.seconds = _processor_seconds(process.pid) - self.start_seconds
            finally:
                process.terminate()

    def _ask(self, url: str) -> None:
        version, generation, rounds = -1, -1, 0
        while not self.done.wait(_EVERY):
            with urlopen(f"{url}since?version={version}&generation={generation}&rounds={rounds}") as answer:
                found = json.load(answer)
            now = time.time()
            if found:
                version, generation = found["version"], found["generation"]
                rounds = found["first"] + len(found["rounds"])
                self.arrived |= {line["round"]: now for line in found["rounds"]}


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Train one run that is watched and tracked; return the shares and the page's delay."""
    names = chosen("track", options.track, dict.fromkeys(TRACKERS))
    timed = _Trackers()
    with tempfile.TemporaryDirectory() as home, patch.object(trackers, "maker", timed.maker):
        config = RunConfig().with_overrides(
            [
                f"run.home={home}",
                f"run.name={NAME}",
                f"run.rounds={options.rounds}",
                f"run.workers={options.workers}",
                f"run.track={','.join(names)}",
                f"data.clients={options.clients}",
            ]
        )
        browser = _Browser(Path(home) / NAME)
        browser.start()
        folder = train(config, observer)
        time.sleep(2 * _EVERY)
        browser.done.set()
        browser.join()
        seconds = folder.read_summary()["seconds"] / options.rounds
        steps = _steps(folder.path)
        event_seconds = _event_seconds(Path(home))
    late = [max(0.0, browser.arrived[n] - at) for n, at in steps.items() if n in browser.arrived]
    late = late[len(late) // 4 :]  # Those before the page was there came all at once
    return {
        "rounds": options.rounds,
        "round-seconds": seconds,
        "page-delay-median-seconds": statistics.median(late),
        "page-delay-most-seconds": max(late),
        "watch-share-percent": 100 * browser.seconds / browser.wall,
        "watch-start-seconds": browser.start_seconds,
        "event-microseconds": 1e6 * event_seconds,
        "tracking": timed.rows(seconds),
    }


def _told(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Return the JSON object that a process writes first, which has several lines."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line.startswith("}"):
            break
    found: dict[str, Any] = json.loads(text)
    return found


def _processor_seconds(pid: int) -> float:
    """Return the processor seconds that a process has taken so far, as Linux counts them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _steps(run_folder: Path) -> dict[int, float]:
    """Return when each round was over, by its number, from the run's own events."""
    lines = [json.loads(line) for line in journals(run_folder)[0].read_text().splitlines()]
    times = [line["time"] for line in lines if line["event"] == "step"]
    return dict(enumerate(times, start=1))


def _event_seconds(folder: Path) -> float:
    """Return what it takes to record an event."""
    journal, took = Journal.begin(folder, "train", "timed"), list[float]()
    with stopped(took):
        for number in range(_EVENTS):
            journal.add("answered", scope="round 1", done=number, total=_EVENTS)
    journal.close()
    return took[0] / _EVENTS

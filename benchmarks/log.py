"""What the update log costs: seconds of a round, and bytes per client and round.

The project's own training loop runs the same rounds without a log and with each kind of log, in turns, in one
process tree. The log's share is what the server waits for in calls of the log, by the rest of that round, so
both see the machine in the same state. The rounds' own seconds are given beside it: they add what the log's
threads take from the workers, and can be compared on a quiet machine only.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from flwr.serverapp import Grid

from app.simulation import LocalGrid
from app.workflows.observer import Observer, Quiet
from benchmarks import clients
from benchmarks.jobs import Job, Task, machine, write_data
from benchmarks.loop import TrainingLoop
from strategies.core import wire
from strategies.log.retention import DTYPES
from strategies.log.strategy import LoggedStrategy
from strategies.log.update_log import UpdateLog
from strategies.rounds import Layer

KINDS: tuple[tuple[str, str], ...] = (
    *(("full", dtype) for dtype in DTYPES),
    *(("interval:2", dtype) for dtype in DTYPES),
    ("sum", "float32"),
)
"""Retention and precision of the logs that are compared."""


class TimedLog:
    """An update log that notes how long its writer waits for it.

    Parameters
    ----------
    log
        Open for writing.

    Attributes
    ----------
    add_seconds, other_seconds : list[float]
        What each call to add an update took, and each of the others.
    """

    def __init__(self, log: UpdateLog) -> None:
        self.add_seconds: list[float] = []
        self.other_seconds: list[float] = []
        self.begin_round = _timed(log.begin_round, self.other_seconds)
        self.add = _timed(log.add, self.add_seconds)
        self.commit_round = _timed(log.commit_round, self.other_seconds)
        self.abandon = log.abandon


def _timed(call: Callable[..., None], seconds: list[float]) -> Callable[..., None]:
    def timed(*args: Any) -> None:
        began = time.perf_counter()
        call(*args)
        seconds.append(time.perf_counter() - began)

    return timed


class Rounds:
    """The training loop over connected clients, with the same initial model for each measurement.

    Parameters
    ----------
    grid
        The clients are behind it.
    task
        What to train.
    """

    def __init__(self, grid: Grid, task: Task) -> None:
        self._loop = TrainingLoop(grid, task.run_config())
        self._state = clients.initial_model().state_dict()
        self.layout = wire.Layout.of(self._state)
        members = self._loop.cohort.clients.values()
        self.num_examples = {info.node_id: info.num_examples for info in members}

    def measure(self, layer: Layer | None = None) -> list[float]:
        """Train; return the seconds of each round."""
        seconds: list[float] = []
        initial = wire.record_of(self._state)
        self._loop.train(initial, lambda result: seconds.append(result.seconds), layer)
        return seconds


def run(
    observer: Observer | None = None,
    *,
    num_clients: int = 100,
    rounds: int = 2,
    steps: int = 10,
    repeats: int = 1,
    workers: int = 0,
    folder: str = "",
) -> dict[str, Any]:
    """Measure each kind of log.

    Parameters
    ----------
    observer
        Told of each kind.
    num_clients, rounds, steps
        The job, with a model of 2.3 MB: every client takes part in every round and makes so many steps of 32.
    repeats
        How often the kinds are gone through; medians are given.
    workers
        Processes that train; 0 for one per core.
    folder
        Where the logs are written: the disk matters; empty for the folder of temporary files.
    """
    observer = observer or Quiet()
    workers = workers or len(os.sched_getaffinity(0))
    measured: dict[tuple[str, str], list[dict[str, float]]] = {kind: [] for kind in KINDS}
    plain: list[float] = []
    observer.phase("log", repeats * (len(KINDS) + 1))
    with _connected(Job(num_clients, rounds, steps, 32), workers) as loop:
        for _ in range(repeats):
            plain += loop.measure(None)
            observer.advance("no log")
            for kind in KINDS:
                measured[kind].append(_measure(loop, *kind, folder or None, num_clients * rounds))
                observer.advance(" ".join(kind))
    return {
        "machine": machine(),
        "workers": workers,
        "clients": num_clients,
        "model-bytes": loop.layout.size * 4,
        "round-seconds-without-log": statistics.median(plain),
        "results": [_result(kind, found) for kind, found in measured.items()],
    }


@contextmanager
def _connected(job: Job, workers: int) -> Iterator[Rounds]:
    with tempfile.TemporaryDirectory() as data:
        task = Task(job, str(write_data(job, Path(data))), workers)
        with LocalGrid(f"{clients.__name__}:app", task.run_config().to_flat(), job.clients, workers) as grid:
            loop = Rounds(grid, task)
            loop.measure(None)  # The first round warms workers and caches up
            yield loop


def _measure(
    loop: Rounds, retention: str, dtype: str, folder: str | None, num_updates: int
) -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory(dir=folder) as path,
        UpdateLog.create(Path(path) / "log", loop.layout, retention, dtype) as log,
    ):
        timed = TimedLog(log)
        rounds = loop.measure(lambda inner: LoggedStrategy(inner, cast(UpdateLog, timed), loop.num_examples))
        log.compact()
        waited = sum(timed.add_seconds) + sum(timed.other_seconds)
        return {
            "round-seconds": statistics.median(rounds),
            "server-seconds": waited / len(rounds),
            "share": waited / (sum(rounds) - waited),
            "add-seconds": statistics.median(timed.add_seconds),
            "bytes-per-client-and-round": log.stored_bytes() / num_updates,
            "bytes-per-client": log.stored_bytes() / num_updates * len(rounds),
        }


def _result(kind: tuple[str, str], found: list[dict[str, float]]) -> dict[str, Any]:
    middle = {key: statistics.median(each[key] for each in found) for key in found[0]}
    return {"retention": kind[0], "dtype": kind[1], **middle}

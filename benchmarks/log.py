"""What the update log costs: seconds of a round, and bytes per client and round.

The project's own training loop runs the same rounds without a log and with each kind of log, in turns, in one
process tree. The log's share is what the server waits for in calls of the log, by the rest of that round, so
both see the machine in the same state. The rounds' own seconds are given beside it: they add what the log's
threads take from the workers, and can be compared on a quiet machine only.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from app.simulation import LocalGrid
from app.simulation.launch import num_cores
from app.workflows.observer import Observer
from benchmarks.figures import stopped
from benchmarks.jobs import CLIENT_APP, Job, Task, initial_model, write_data
from benchmarks.loop import TrainingLoop
from benchmarks.options import BenchmarkOptions
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
        self.written = _timed(log.written, self.other_seconds)
        self.commit_round = _timed(log.commit_round, self.other_seconds)
        self.abandon = log.abandon


def _timed(call: Callable[..., None], seconds: list[float]) -> Callable[..., None]:
    def timed(*args: Any) -> None:
        with stopped(seconds):
            call(*args)

    return timed


class Options(BenchmarkOptions):
    """Options of the benchmark."""

    num_clients: int = 100
    rounds: int = 2
    steps: int = 10
    """The job, with a model of 2.3 MB: in every round, every client makes so many steps of 32 examples."""
    repeats: int = 1
    """How often the kinds are gone through; medians are given."""
    workers: int = 0
    """Processes that train; 0 for one per core."""
    folder: str = ""
    """Where the logs are written: the disk matters; empty for the folder of temporary files."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Measure each kind of log."""
    workers = options.workers or num_cores()
    measured: dict[tuple[str, str], list[dict[str, float]]] = {kind: [] for kind in KINDS}
    plain: list[float] = []
    layout = wire.Layout.of(initial_model().state_dict())
    observer.phase("log", options.repeats * (len(KINDS) + 1))
    with _connected(Job(options.num_clients, options.rounds, options.steps, 32), workers) as loop:
        for _ in range(options.repeats):
            plain += _seconds(loop)
            observer.advance("no log")
            for kind in KINDS:
                measured[kind].append(_measure(loop, layout, kind, options))
                observer.advance(" ".join(kind))
    return {
        "workers": workers,
        "clients": options.num_clients,
        "model-bytes": layout.size * 4,
        "round-seconds-without-log": statistics.median(plain),
        "results": [_result(kind, found) for kind, found in measured.items()],
    }


@contextmanager
def _connected(job: Job, workers: int) -> Iterator[TrainingLoop]:
    with tempfile.TemporaryDirectory() as data:
        task = Task(job, str(write_data(job, Path(data))), workers)
        with LocalGrid(CLIENT_APP, task.run_config().to_flat(), job.clients, workers) as grid:
            loop = TrainingLoop(grid, task.run_config())
            _seconds(loop)  # The first round warms workers and caches up
            yield loop


def _seconds(loop: TrainingLoop, layer: Layer | None = None) -> list[float]:
    """Train, always from the same model; return the seconds of each round."""
    seconds: list[float] = []
    initial = wire.record_of(initial_model().state_dict())
    loop.train(initial, lambda result: seconds.append(result.seconds), layer)
    return seconds


def _measure(
    loop: TrainingLoop, layout: wire.Layout, kind: tuple[str, str], options: Options
) -> dict[str, float]:
    num_examples = {info.node_id: info.num_examples for info in loop.cohort.clients.values()}
    with (
        tempfile.TemporaryDirectory(dir=options.folder or None) as path,
        UpdateLog.create(Path(path) / "log", layout, *kind) as log,
    ):
        timed = TimedLog(log)
        seconds = _seconds(loop, lambda inner: LoggedStrategy(inner, cast(UpdateLog, timed), num_examples))
        log.compact()
        waited = sum(timed.add_seconds) + sum(timed.other_seconds)
        stored = log.stored_bytes() / options.num_clients
        return {
            "round-seconds": statistics.median(seconds),
            "server-seconds": waited / len(seconds),
            "share": waited / (sum(seconds) - waited),
            "add-seconds": statistics.median(timed.add_seconds),
            "bytes-per-client-and-round": stored / options.rounds,
            "bytes-per-client": stored,
        }


def _result(kind: tuple[str, str], found: list[dict[str, float]]) -> dict[str, Any]:
    middle = {key: statistics.median(each[key] for each in found) for key in found[0]}
    return {"retention": kind[0], "dtype": kind[1], **middle}

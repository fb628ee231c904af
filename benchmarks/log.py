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

from torch import Tensor

from app.models.built_in import build_model
from app.simulation import LocalGrid
from app.workflows.observer import Observer, Quiet
from benchmarks import clients
from benchmarks.jobs import Job, Task, machine, write_data
from strategies.core import wire
from strategies.log.retention import DTYPES
from strategies.log.strategy import LoggedStrategy
from strategies.log.update_log import UpdateLog
from strategies.plan import Start, TrainingPlan
from strategies.rounds import Layer, train
from strategies.server.cohort import Cohort

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
    """

    def __init__(self, log: UpdateLog) -> None:
        self.log = log
        self.seconds = 0.0
        self.add_seconds: list[float] = []

    def begin_round(self, server_round: int, expected_weight: float | None = None) -> None:
        """Begin a round."""
        self._timed(self.log.begin_round, server_round, expected_weight)

    def add(
        self,
        server_round: int,
        client_id: str,
        weight_raw: float,
        num_examples: int,
        delta: Tensor,
        norm: float,
    ) -> None:
        """Add an update."""
        seconds = self._timed(self.log.add, server_round, client_id, weight_raw, num_examples, delta, norm)
        self.add_seconds.append(seconds)

    def commit_round(self, server_round: int, averaging: bool) -> None:
        """Commit the round."""
        self._timed(self.log.commit_round, server_round, averaging)

    def abandon(self) -> None:
        """Give up the round, if there is one."""
        self.log.abandon()

    def _timed(self, call: Callable[..., None], *args: Any) -> float:
        began = time.perf_counter()
        call(*args)
        seconds = time.perf_counter() - began
        self.seconds += seconds
        return seconds


class Rounds:
    """The training loop over connected clients, started anew for each measurement.

    Parameters
    ----------
    cohort
        Connected.
    task
        What to train.
    """

    def __init__(self, cohort: Cohort, task: Task) -> None:
        config = task.run_config()
        self._cohort = cohort
        self._plan = TrainingPlan(config.strategy, config.selection, task.job.rounds, config.run.seed)
        self._state = build_model(config.model, (1, 28, 28), 10, config.run.seed).state_dict()
        self.layout = wire.Layout.of(self._state)
        self.num_examples = {info.node_id: info.num_examples for info in cohort.clients.values()}

    def measure(self, layer: Layer | None) -> list[float]:
        """Train; return the seconds of each round."""
        seconds: list[float] = []
        start = Start(wire.record_of(self._state))
        train(self._plan, self._cohort, start, layer=layer, on_round=lambda r, _: seconds.append(r.seconds))
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
            cohort = Cohort(grid)
            cohort.client_config.update({wire.NUM_GROUPS: 10, wire.INPUT_SHAPE: [1, 28, 28]})
            cohort.connect(job.clients)
            loop = Rounds(cohort, task)
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
        return {
            "round-seconds": statistics.median(rounds),
            "server-seconds": timed.seconds / len(rounds),
            "share": timed.seconds / (sum(rounds) - timed.seconds),
            "add-seconds": statistics.median(timed.add_seconds),
            "bytes-per-client-and-round": log.stored_bytes() / num_updates,
            "bytes-per-client": log.stored_bytes() / num_updates * len(rounds),
        }


def _result(kind: tuple[str, str], found: list[dict[str, float]]) -> dict[str, Any]:
    middle = {key: statistics.median(each[key] for each in found) for key in found[0]}
    return {"retention": kind[0], "dtype": kind[1], **middle}

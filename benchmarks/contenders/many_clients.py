"""A whole run of many small clients, with log and checkpoints: what its server takes for each of them."""

import resource
import tempfile
import time
from collections.abc import Mapping
from typing import final

from app.workflows.observer import Quiet
from app.workflows.training import train
from benchmarks.jobs import Stopwatch, Task
from benchmarks.options import separate_keys
from strategies.core import wire


@final
class _Laps(Quiet):
    """Times the rounds; the first begins when the clients are known."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch
        self.server: list[float] = []
        self._before = 0.0

    def phase(self, name: str, total: int) -> None:
        """Note that the first round begins."""
        if name.startswith("train"):
            self._watch.start()
            self._before = time.process_time()

    def advance(self, message: str = "", values: Mapping[str, float] | None = None) -> None:
        """Note that a round is over."""
        if message.startswith("round"):
            self._watch.lap()
            self.server.append(time.process_time() - self._before)
            self._before = time.process_time()


def main(task: Task, watch: Stopwatch) -> None:
    """Run the task."""
    laps = _Laps(watch)
    with tempfile.TemporaryDirectory() as home:
        keys = [f"run.home={home}", "model.name=mlp", f"model.hidden={task.hidden}", "log.retention=sum"]
        config = task.run_config().with_overrides([*keys, *separate_keys(task.overrides)])
        folder = train(config, laps)
        flat = wire.flat_of(record := wire.record_of(folder.read_model()), wire.layout_of(record))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    further = {
        "server-seconds": laps.server,
        "processor-seconds": sum(used.ru_utime + used.ru_stime for used in both),
        "peak-mb": peak,
        "parameters": len(flat),
    }
    watch.report(flat, **further)

"""The server's memory while it averages large models: two rounds of the project's own training loop."""

import resource
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from app.config.run_config import RunConfig
from app.simulation import LocalGrid
from benchmarks.jobs import Stopwatch, Task
from benchmarks.loop import TrainingLoop
from strategies.core import wire

_SCALARS_PER_MEGABYTE = 250_000

app = ClientApp()


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    """Say that this client has one example."""
    return wire.reply_to(message, _name(context), {wire.NUM_EXAMPLES: 1, wire.LABEL_COUNTS: [1]})


@app.train()
def add_one(message: Message, context: Context) -> Message:
    """Send the model back with one added to every parameter."""
    state = wire.state_of(message.content.array_records[wire.ARRAYS])
    arrays = wire.record_of({name: tensor + 1 for name, tensor in state.items()})
    return wire.reply_to(message, _name(context), {wire.NUM_EXAMPLES: 1, wire.TRAIN_LOSS: 0.0}, arrays)


def _name(context: Context) -> str:
    return str(context.node_config["partition-id"])


def resident_mb() -> float:
    """Return this process's resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main(task: Task, watch: Stopwatch) -> None:
    """Run the task."""
    config = RunConfig().with_overrides([f"run.rounds={task.job.rounds}", f"data.clients={task.job.clients}"])
    with LocalGrid(f"{__name__}:app", {}, task.job.clients, task.workers) as grid:
        loop = TrainingLoop(grid, config)
        initial = wire.record_of({"w": torch.zeros(task.megabytes * _SCALARS_PER_MEGABYTE)})
        before = resident_mb()
        watch.start()
        arrays = loop.train(initial, lambda result: watch.lap())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    flat = wire.flat_of(arrays, wire.layout_of(arrays))
    watch.report(flat, **{"before-mb": before, "peak-mb": peak, "added-mb": peak - before})

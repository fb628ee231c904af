"""The project itself: its training loop, its strategy and its ClientApp over `LocalGrid`."""

from flwr.serverapp import Grid

from app.simulation import LocalGrid
from app.simulation.grouping import Grouping
from benchmarks.jobs import CLIENT_APP, Stopwatch, Task, initial_model
from benchmarks.loop import TrainingLoop
from strategies.core import wire


def train_over(grid: Grid, task: Task, watch: Stopwatch) -> None:
    """Connect to the clients, train, and report."""
    loop = TrainingLoop(grid, task.run_config())
    initial = wire.record_of(initial_model(task.job).state_dict())
    watch.start(grid.processes if isinstance(grid, LocalGrid) else ())
    arrays = loop.train(initial, lambda result: watch.lap())
    watch.report(wire.flat_of(arrays, wire.layout_of(arrays)), workers=task.workers)


def main(task: Task, watch: Stopwatch) -> None:
    """Run the task."""
    config = task.run_config().to_flat()
    with LocalGrid(CLIENT_APP, config, task.job.clients, task.workers) as grid:
        grid.grouping = Grouping.of(task.vectorise, "cpu")
        train_over(grid, task, watch)

"""The project itself: its training loop, its strategy and its ClientApp over `LocalGrid`."""

from flwr.serverapp import Grid

from app.simulation import LocalGrid
from benchmarks import clients
from benchmarks.jobs import INPUT_SHAPE, NUM_GROUPS, Stopwatch, Task
from strategies.core import wire
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import train
from strategies.server.cohort import Cohort


def train_over(grid: Grid, task: Task, watch: Stopwatch) -> wire.FlatRecord:
    """Connect to the clients and train; return the final model."""
    config = task.run_config()
    cohort = Cohort(grid)
    cohort.client_config.update({wire.NUM_GROUPS: NUM_GROUPS, wire.INPUT_SHAPE: list(INPUT_SHAPE)})
    cohort.connect(task.job.clients)
    model = clients.initial_model()
    plan = TrainingPlan(config.strategy, config.selection, config.run.rounds, config.run.seed)
    watch.start()

    def on_round(result: RoundResult, strategy: object) -> None:
        watch.lap()
        if len(result.accepted) != task.job.clients:
            raise RuntimeError(f"{len(result.accepted)} of {task.job.clients} clients: {result.faults[:1]}")

    arrays = train(plan, cohort, Start(wire.record_of(model.state_dict())), on_round=on_round)
    assert isinstance(arrays, wire.FlatRecord)
    return arrays


def main() -> None:
    """Run the task on standard input."""
    watch = Stopwatch()
    task = Task.read()
    config = task.run_config().to_flat()
    with LocalGrid(f"{clients.__name__}:app", config, task.job.clients, task.workers) as grid:
        arrays = train_over(grid, task, watch)
    assert arrays.flat is not None
    watch.report(arrays.flat, workers=task.workers)


if __name__ == "__main__":
    main()

"""The project's ServerApp and ClientApp in Flower's own simulation, which runs clients as Ray actors."""

import os
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from benchmarks import clients
from benchmarks.contenders.lethe import train_over
from benchmarks.jobs import Stopwatch, Task


def main(task: Task, watch: Stopwatch) -> None:
    """Run the task."""
    run_config = task.run_config().to_flat()
    client_app, server_app = ClientApp(), ServerApp()

    def serve(message: Message, context: Context) -> Message:
        told = Context(context.run_id, context.node_id, context.node_config, context.state, run_config)
        return clients.app(message, told)

    client_app.train()(serve)
    client_app.query("describe")(serve)

    @server_app.main()
    def serve_all(grid: Grid, context: Context) -> None:
        train_over(grid, task, watch)

    run_simulation(server_app, client_app, task.job.clients, backend_config=backend_config(task))


def backend_config(task: Task) -> dict[str, dict[str, Any]]:
    """Return Flower's settings for as many actors as the task has workers."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    return {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"num_cpus": task.workers, "log_to_driver": False},
    }

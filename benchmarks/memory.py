"""How much memory the server needs: peak resident memory by the number of clients in a round.

The server process is measured with clients that only add a constant to the model.
"""

from typing import Any

from app.workflows.observer import Observer
from benchmarks.jobs import Job, Task, contend
from benchmarks.options import BenchmarkOptions, numbers


class Options(BenchmarkOptions):
    """Options of the benchmark."""

    clients: str = "10,100,1000"
    """Numbers of clients in a round, separated by commas."""
    megabytes: int = 10
    """Size of the model."""
    workers: int = 2
    """Processes; each takes memory for one or two replies."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Measure the server process.

    Returns
    -------
    dict
        ``megabytes``, ``workers``, and for each number of clients ``before-mb``, the memory when the first
        round begins, ``peak-mb``, the most afterwards, their difference ``added-mb``, and the time per
        client.
    """
    cohorts = [int(number) for number in numbers("clients", options.clients)]
    observer.phase("memory", len(cohorts))
    measured: dict[str, Any] = {}
    for number in cohorts:
        job = Job(clients=number, rounds=2, steps=1, batch_size=1)
        task = Task(job, "", options.workers, megabytes=options.megabytes)
        measured[str(number)] = contend("server_memory", task)
        observer.advance(f"{number} clients")
    return {**options.settings("megabytes", "workers"), "clients": measured}

"""What a round costs by the number of clients: seconds, the server's own processor time for each, and memory.

Each client takes one step of four images of 8×8 pixels; updates are logged as sums, and each round
is followed by a checkpoint. Every number of clients is a run in a process of its own.
"""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from app.workflows.observer import Observer
from benchmarks.jobs import NUM_GROUPS, Job, Task, contend
from benchmarks.options import BenchmarkOptions, numbers
from strategies.core.seeds import numpy_generator

_SIDE = 8
BATCH = 4
"""Images of a step, and of a client."""


class Options(BenchmarkOptions):
    """Options of the benchmark."""

    clients: str = "10,100,1000,10000"
    """Numbers of clients, all of which take part in each round, separated by commas."""
    rounds: int = 2
    """Of each run."""
    workers: int = 2
    """Processes that train."""
    hidden: int = 64
    """Units of each of the perceptron's layers."""
    fraction: float = 1.0
    """Share of the clients that take part in a round."""
    overrides: str = ""
    """Further keys of the run config, such as ``selection.method=oort``, with a semicolon between them."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Measure runs.

    Returns
    -------
    dict
        The options, and for each number of clients ``startup-seconds``, ``round-seconds`` of the fastest
        round, ``server-ms-per-client`` of processor time in each round for a client that takes part,
        ``peak-mb`` of the server and ``parameters``.
    """
    cohorts = [int(number) for number in numbers("clients", options.clients)]
    observer.phase("scale", len(cohorts))
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in cohorts:
            job = Job(clients=count, rounds=options.rounds, steps=1, batch_size=BATCH)
            data = write_images(count, Path(folder))
            keys = f"selection.fraction={options.fraction};{options.overrides}"
            task = Task(job, str(data), options.workers, hidden=options.hidden, overrides=keys)
            asked = math.ceil(options.fraction * count)
            measured[str(count)] = _costs(contend("many_clients", task), asked)
            observer.advance(f"{count} clients")
    return {**options.settings("rounds", "workers", "hidden", "fraction", "overrides"), "clients": measured}


def _costs(found: dict[str, Any], asked: int) -> dict[str, Any]:
    return {
        "startup-seconds": found["startup-seconds"],
        "round-seconds": min(found["round-seconds"]),
        "server-ms-per-client": [seconds / asked * 1000 for seconds in found["server-seconds"]],
        "peak-mb": found["peak-mb"],
        "parameters": found["parameters"],
    }


def write_images(clients: int, folder: Path) -> Path:
    """Write random images and labels for all clients; return the npz file."""
    generator, size = numpy_generator(0, "benchmark-data"), max(NUM_GROUPS, clients * BATCH)
    x = generator.integers(0, 256, (size, _SIDE, _SIDE), dtype=np.uint8)
    y = generator.integers(0, NUM_GROUPS, size)
    y[:NUM_GROUPS] = np.arange(NUM_GROUPS)
    path = folder / f"{clients}.npz"
    np.savez(path, x=x, y=y)
    return path

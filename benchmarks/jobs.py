"""The jobs that all contenders run, and the model and data they run them on."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import nn

from app.config.run_config import RunConfig
from app.config.settings import ModelSettings
from app.data import load_client_data
from app.models.built_in import build_model
from app.simulation.launch import partition_configs
from strategies.core.errors import LetheError
from strategies.core.examples import TensorExamples, in_memory
from strategies.core.seeds import numpy_generator, torch_generator

LEARNING_RATE = 0.05
NUM_PARAMETERS = 582_026
NUM_GROUPS = 10
INPUT_SHAPE = (1, 28, 28)
_HIDDEN: Mapping[str, int] = {"cnn": ModelSettings().hidden, "mlp": 32}
_PATIENCE = 3600.0
"""Seconds after which a contender is given up."""


@dataclass(frozen=True)
class Job:
    """Some rounds of federated averaging in which every client takes part."""

    clients: int
    rounds: int
    """How many."""
    steps: int
    """Optimiser steps of each client in each round."""
    batch_size: int
    """TensorExamples of each step; a client holds `steps` × `batch_size` examples."""
    model: Literal["cnn", "mlp"] = "cnn"
    """The reference CNN, or a perceptron of 26,634 parameters."""

    def scaled(self, share: float) -> Self:
        """Return the job with that share of its clients, at least 2."""
        return replace(self, clients=max(2, round(self.clients * share)))


JOBS: Mapping[str, Job] = {
    "compute-bound": Job(clients=100, rounds=5, steps=10, batch_size=32),
    "overhead-bound": Job(clients=200, rounds=3, steps=1, batch_size=4),
    "many-small": Job(clients=1000, rounds=10, steps=5, batch_size=10, model="mlp"),
}


@dataclass(frozen=True)
class Task:
    """What a contender is told."""

    job: Job
    data: str
    """An npz file with the job's data."""
    workers: int = 1
    threads: int = 0
    """Processes, and threads of each; 0 leaves it to the contender."""
    megabytes: int = 0
    """Size of the model where that is what is asked about."""
    image_size: int = 0
    """Side that images are scaled to, where the data are a folder of them."""
    vectorise: str = "off"
    """Clients that train side by side, as ``run.vectorise`` has it."""
    hidden: int = 0
    """Units of each layer of a perceptron, where one is trained."""
    overrides: str = ""
    """Further keys of the run config, with a semicolon between them, where a whole run is measured."""

    @staticmethod
    def read() -> "Task":
        """Return the task on standard input; note that the measurement begins."""
        values = json.load(sys.stdin)
        task = Task(Job(**values.pop("job")), **values)
        if task.threads:
            torch.set_num_threads(task.threads)
        return task

    def clients(self) -> list[TensorExamples]:
        """Return each client's examples."""
        config = self.run_config()
        nodes = partition_configs(self.job.clients)
        return [in_memory(load_client_data(config.data, config.run.seed, node)) for node in nodes]

    def run_config(self) -> RunConfig:
        """Return the job as a run config of this project."""
        return RunConfig().with_overrides(
            [
                f"data.name=npz:{self.data}",
                f"data.clients={self.job.clients}",
                "data.public=0",
                "data.test-share=0",
                f"train.learning-rate={LEARNING_RATE}",
                "train.momentum=0",
                f"train.batch-size={self.job.batch_size}",
                f"train.local-steps={self.job.steps}",
                f"run.rounds={self.job.rounds}",
                f"run.workers={self.workers}",
                f"run.vectorise={self.vectorise}",
                f"model.name={self.job.model}",
                f"model.hidden={_HIDDEN[self.job.model]}",
            ]
        )


@cache
def client_examples(task: Task) -> list[TensorExamples]:
    """Return each client's examples, which a process reads once."""
    return task.clients()


def write_data(job: Job, folder: Path) -> Path:
    """Write random images and labels in MNIST's shapes for all clients of a job; return the npz file."""
    generator = numpy_generator(0, "benchmark-data")
    size = job.clients * job.steps * job.batch_size
    x = generator.integers(0, 256, (size, *INPUT_SHAPE[1:]), dtype=np.uint8)
    y = generator.integers(0, NUM_GROUPS, size)
    y[:NUM_GROUPS] = np.arange(NUM_GROUPS)[:size]
    path = folder / f"{job.clients}x{job.steps}x{job.batch_size}.npz"
    np.savez(path, x=x, y=y)
    return path


def reference_cnn(
    settings: ModelSettings, input_shape: tuple[int, ...] = INPUT_SHAPE, num_outputs: int = NUM_GROUPS
) -> nn.Module:
    """Return the CNN of McMahan et al. (arXiv 1602.05629), unpadded: 582,026 parameters on 28×28 images."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 32, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),  # [n, 32, 12, 12]
        nn.Conv2d(32, 64, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),  # [n, 64, 4, 4]
        nn.Flatten(),
        nn.Linear(1024, 512),
        nn.ReLU(),
        nn.Linear(512, num_outputs),
    )


CLIENT_APP = "benchmarks.clients:app"
"""The project's own clients with that model for their cnn."""


def initial_model(job: Job | None = None) -> nn.Module:
    """Return the model that every contender starts from: weights as `build_model` draws them at seed 0."""
    if job is not None and job.model == "mlp":
        return build_model(ModelSettings(name="mlp", hidden=_HIDDEN["mlp"]), INPUT_SHAPE, NUM_GROUPS, 0)
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(torch_generator(0, "model").get_state())
        return reference_cnn(ModelSettings())


class Stopwatch:
    """Times a contender's rounds."""

    def __init__(self) -> None:
        self._began = self._last = time.perf_counter()
        self._startup = 0.0
        self._rounds: list[float] = []
        self._workers: Sequence[int] = ()
        self._processor = 0.0

    def start(self, workers: Sequence[int] = ()) -> None:
        """Note that everything is ready and the first round begins; `workers` are processes that help."""
        self._workers = workers
        self._processor = self._processor_seconds()
        self._last = time.perf_counter()
        self._startup = self._last - self._began

    def _processor_seconds(self) -> float:
        return time.process_time() + sum(map(processor_seconds, self._workers))

    def lap(self) -> None:
        """Note that a round is over."""
        now = time.perf_counter()
        self._rounds.append(now - self._last)
        self._last = now

    def report(self, flat: torch.Tensor, **further: Any) -> None:
        """Print what was measured, and the norm of the final model, by which contenders can be compared."""
        measured = {
            "seconds": sum(self._rounds),
            "round-seconds": self._rounds,
            "processor-seconds": self._processor_seconds() - self._processor,
            "startup-seconds": self._startup,
            "peak-mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
            "model-norm": float(torch.linalg.vector_norm(flat.double())),
            **further,
        }
        sys.stdout.write(json.dumps(measured) + "\n")


def processor_seconds(process: int) -> float:
    """Return the processor time that a running process has taken so far, on Linux."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def contend(name: str, task: Task, path: Sequence[str] = ()) -> dict[str, Any]:
    """Run a contender in a fresh process; return what it measured.

    Parameters
    ----------
    name
        Of a module in `benchmarks.contenders`.
    task
        What it is to do.
    path
        Folders in which it finds further packages.

    Raises
    ------
    LetheError
        If it fails; the message holds the last line that it wrote.
    """
    search = [str(folder) for folder in sys.path if folder] + list(path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search)}
    command = [sys.executable, "-m", "benchmarks.contenders", name]
    told = json.dumps(asdict(task))
    try:
        done = subprocess.run(
            command,
            input=told,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise LetheError(f"contender '{name}' took more than {_PATIENCE:g} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise LetheError(f"contender '{name}' failed: {lines[-1]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result

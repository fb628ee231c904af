"""A large model from its training to the erasure of a client: memory in models, seconds, and bytes on disk.

Each command runs in processes of its own, once with the large perceptron and once with a tiny one. What the
tiny one takes is that of the imports; the rest is given in models, 4 bytes for each parameter.
"""

import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from app.workflows.observer import Observer
from benchmarks.footprint import Footprint, measured
from benchmarks.jobs import NUM_GROUPS
from benchmarks.options import BenchmarkOptions, chosen, separate_keys
from strategies.core.seeds import numpy_generator

_SIDE, _BATCH = 8, 8
TINY = 16
"""Units of each layer of the model whose commands take what the imports take."""
_RUN, _CLIENT = "large", "2"
_LETHE = [sys.executable, "-c", "from strategies.core.ours import command; command()"]
METHODS = (
    *("subtract", "fast-fedul", "leave-out", "fast-distill"),
    *("distill", "finetune", "federaser", "retrain"),
)
"""Those that can be measured, in this order."""


class Options(BenchmarkOptions):
    """Options of the benchmark."""

    megabytes: int = 100
    """Size of the model."""
    clients: int = 4
    """All take part in each round, with one step of eight images."""
    rounds: int = 2
    """Of training."""
    workers: int = 2
    """Processes that train."""
    retention: str = "full"
    """Of the update log: ``full`` or ``sum``."""
    methods: str = "subtract"
    """Names of the methods that forget a client, with commas between them."""
    audit: bool = False
    """Whether the first method is audited as well, which retrains."""
    overrides: str = ""
    """Further keys of the run config, such as ``train.optimizer=adam``, with a semicolon between them."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Measure the commands.

    Returns
    -------
    dict
        The options, ``parameters``, ``log-bytes`` and ``checkpoint-bytes``, and for each command ``seconds``,
        and what server and worker take besides the imports, ``server-models`` and ``worker-models``.
    """
    methods = chosen("methods", options.methods, dict.fromkeys(METHODS))
    observer.phase("large", 2 * (len(methods) + (6 if options.audit else 5)))
    with tempfile.TemporaryDirectory() as place:
        data = write_data(options.clients, Path(place))
        tiny, _ = _all_steps(options, TINY, data, Path(place) / "tiny", observer)
        hidden = hidden_of(options.megabytes)
        large, sizes = _all_steps(options, hidden, data, Path(place) / "large", observer)
    model_mb = 4 * sizes["parameters"] / 1e6
    return {
        **options.settings(),
        **sizes,
        **{name: _in_models(large[name], tiny[name], model_mb) for name in large},
    }


def hidden_of(megabytes: int) -> int:
    """Return the units of each layer of a perceptron of that size: h (h + inputs + outputs) parameters."""
    sides = _SIDE**2 + NUM_GROUPS
    return round((math.sqrt(sides**2 + 1e6 * megabytes) - sides) / 2)


def _in_models(large: Footprint, tiny: Footprint, model_mb: float) -> dict[str, float]:
    return {
        "seconds": large.seconds,
        "server-models": (large.server_mb - tiny.server_mb) / model_mb,
        "worker-models": (large.worker_mb - tiny.worker_mb) / model_mb,
    }


def _all_steps(
    options: Options, hidden: int, data: Path, home: Path, observer: Observer
) -> tuple[dict[str, Footprint], dict[str, int]]:
    """Run all commands with a perceptron; return what each took, and the sizes of what lay on the disk."""
    found: dict[str, Footprint] = {}
    sizes: dict[str, int] = {}
    for name, command in _commands(options, hidden, data, home):
        found[name] = measured([*_LETHE, *command])
        if name == "train":
            sizes = _sizes(home / _RUN)
        observer.advance(f"{name}, {hidden} units")
    return found, sizes


def _commands(options: Options, hidden: int, data: Path, home: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield what is measured, in this order: the purge takes from the log what the methods need."""
    folder, methods = str(home / _RUN), chosen("methods", options.methods, dict.fromkeys(METHODS))
    keys = _keys(options, hidden, data)
    yield "train", ["train", "--set", f"run.home={home}", *(part for key in keys for part in ("--set", key))]
    for method in methods:
        yield method, ["forget", folder, "--client", _CLIENT, "--method", method]
    if options.audit:
        yield "audit", ["audit", folder, "--client", _CLIENT, "--method", methods[0]]
    yield "purge", ["forget", folder, "--client", _CLIENT, "--method", methods[0], "--purge"]
    yield "verify", ["verify", folder]
    yield "report", ["report", folder]
    yield "runs", ["runs", "--home", str(home)]


def _keys(options: Options, hidden: int, data: Path) -> list[str]:
    return [
        f"run.name={_RUN}",
        f"run.rounds={options.rounds}",
        f"run.workers={options.workers}",
        f"data.name=npz:{data}",
        f"data.clients={options.clients}",
        "data.public=0.2",
        "model.name=mlp",
        f"model.hidden={hidden}",
        "train.local-steps=1",
        f"train.batch-size={_BATCH}",
        f"log.retention={options.retention}",
        *separate_keys(options.overrides),
    ]


def _sizes(folder: Path) -> dict[str, int]:
    log = sum(path.stat().st_size for path in (folder / "log").rglob("*") if path.is_file())
    model = (folder / "model.safetensors").stat().st_size
    checkpoint = (folder / "checkpoint.safetensors").stat().st_size
    return {"parameters": model // 4, "log-bytes": log, "checkpoint-bytes": checkpoint}


def write_data(clients: int, folder: Path) -> Path:
    """Write random images, eight for each client and as many for the server; return the npz file."""
    generator, size = numpy_generator(0, "benchmark-data"), max(NUM_GROUPS, 2 * clients * _BATCH)
    x = generator.integers(0, 256, (size, _SIDE, _SIDE), dtype=np.uint8)
    y = generator.integers(0, NUM_GROUPS, size)
    y[:NUM_GROUPS] = np.arange(NUM_GROUPS)
    path = folder / "images.npz"
    np.savez(path, x=x, y=y)
    return path

"""How long a deployed round of hardly any work takes: Flower's own loop, and Lethe's, on the same machine.

Three clients on loopback. Both apps train a small perceptron for a step or a few; what is measured is
polling, the start of processes, imports and transfer, each by itself as well.
"""

import json
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.workflows.observer import Observer
from benchmarks.deployed import parts
from benchmarks.deployed.federation import Federation, nodes_of
from benchmarks.deployed.soak import rounds_of
from benchmarks.options import BenchmarkOptions
from strategies.core.errors import BadInput, LetheError
from strategies.core.settings import Scalar

_APP = Path(__file__).parent / "flower_app"
_CLIENTS = ("0", "1", "2")
_FEWEST = 2
"""Rounds: the first does not count."""


class Options(BenchmarkOptions):
    """Options of the benchmark."""

    rounds: int = 5
    """Of each contender; the first, in which apps are unpacked, is left out of the median."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Measure Flower's FedAvg as it is installed, and Lethe without and with ``lethe executor``.

    Returns
    -------
    dict
        For each contender ``round-seconds`` and their ``median``, and the median seconds of each of the
        ``parts`` of a round and their ``sum``; the ``ratios`` of the medians to Flower's; and, for people,
        all ``parts`` beside each other.

    Raises
    ------
    BadInput
        If there are too few rounds.
    LetheError
        If a contender does not come to its end.
    """
    if options.rounds < _FEWEST:
        raise BadInput(f"benchmark deployed: rounds: given {options.rounds}, allowed at least {_FEWEST}")
    contenders: dict[str, Callable[[Path, int], list[float]]] = {
        "flower": _flower,
        "lethe-fresh-processes": lambda folder, count: _lethe(folder, count, warm=False),
        "lethe-executor": lambda folder, count: _lethe(folder, count, warm=True),
    }
    observer.phase("deployed", len(contenders))
    measured: dict[str, dict[str, Any]] = {}
    for name, contender in contenders.items():
        with tempfile.TemporaryDirectory() as folder:
            seconds = contender(Path(folder), options.rounds)
            measured[name] = figures(seconds, parts.read(Path(folder)))
        observer.advance(name)
    base = measured["flower"]["median"]
    ratios = {name: round(each["median"] / base, 3) for name, each in measured.items()}
    return {**measured, "ratios": ratios, "parts": table(measured)}


def figures(seconds: Sequence[float], stamps: Sequence[parts.Stamp]) -> dict[str, Any]:
    """Return a contender's figures, from what its rounds took by its own clock and from the notes taken."""
    found = parts.medians(parts.rounds(stamps))
    return {
        "round-seconds": seconds,
        "median": statistics.median(seconds[1:]),
        "parts": found,
        "sum": sum(found.values()),
    }


def table(measured: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each part, their sum, and the measured round, with a column for each contender."""
    rows = [{"part": part, **{i: m["parts"][part] for i, m in measured.items()}} for part in parts.PARTS]
    rows.append({"part": "sum", **{i: m["sum"] for i, m in measured.items()}})
    rows.append({"part": "measured round", **{i: m["median"] for i, m in measured.items()}})
    return rows


def _flower(folder: Path, rounds: int) -> list[float]:
    times, app = folder / "times.json", Path(shutil.copytree(_APP, folder / "plain"))
    (app / "manifest.txt").rename(app / "pyproject.toml")
    with Federation(folder, _CLIENTS, nodes_of(_CLIENTS), app=app, short_poll=False) as federation:
        federation.environment |= parts.put_ahead(folder)
        federation.start()
        printed = federation.run({"rounds": rounds, "times": str(times)})
    if not times.exists():
        raise LetheError(f"Flower's app failed: {printed[-500:]}")
    found: list[float] = json.loads(times.read_text())
    return found


def _lethe(folder: Path, rounds: int, *, warm: bool) -> list[float]:
    with Federation(folder, _CLIENTS, nodes_of(_CLIENTS)) as federation:
        federation.environment |= parts.put_ahead(folder)
        federation.start(warm=warm)
        config: dict[str, Scalar] = {
            "run.name": "rounds",
            "run.home": str(federation.runs),
            "run.rounds": rounds,
            "data.clients": len(_CLIENTS),
            "data.train-limit": 240,
            "data.test-limit": 80,
            "model.name": "mlp",
            "model.hidden": 16,
        }
        printed = federation.run(config)
        lines = rounds_of(federation.runs / "rounds")
    if len(lines) < rounds:
        raise LetheError(f"the run failed: {printed[-500:]}")
    return [float(line["seconds"]) for line in lines]

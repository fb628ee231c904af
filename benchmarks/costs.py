"""What a run costs by its clients, its rounds and its parameters, measured piece by piece, and drawn.

Each client takes one step of four images of 8×8 pixels in each round; updates are logged as sums, and each
round is followed by a checkpoint. One of the three numbers varies while the others stay; each run is a
process of its own. Seconds by the clock depend on what else the machine does, so the processor's are given
beside them, and how busy the machine was.
"""

import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from app.workflows.observer import Observer
from benchmarks.figures import machine
from benchmarks.jobs import Job, Task, contend
from benchmarks.kept import Kept
from benchmarks.log_plot import Panel, plot
from benchmarks.options import BenchmarkOptions, numbers
from benchmarks.scale import BATCH, write_images
from strategies.runs.files import read_json, write_json
from strategies.runs.home import expand

COSTS = "costs.json"
"""In the folder of the pictures: the numbers that they show."""
_ACROSS = {"clients": "clients", "rounds": "rounds", "hidden": "parameters"}
"""What varies, and what the axis below says."""


class Options(BenchmarkOptions):
    """Options of the benchmark."""

    clients: str = "10,100,1000,10000"
    """Numbers of clients, all of which take part in each round, separated by commas."""
    rounds: str = "1,8,64"
    """Numbers of rounds."""
    hidden: str = "16,64,256,1024"
    """Units of each of the perceptron's layers, which decide the number of parameters."""
    base_clients: int = 100
    """Clients of the runs that vary in something else."""
    base_rounds: int = 2
    """Rounds of the runs that vary in something else."""
    base_hidden: int = 48
    """Units of the runs that vary in something else: about 6,000 parameters."""
    workers: int = 2
    """Processes that train."""
    keep: str = ""
    """Folder in which runs that were measured are kept, so that another call goes on."""
    pictures: str = ""
    """Folder to draw into, and to write the numbers into; empty: nowhere."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Measure runs, and draw what they cost.

    Returns
    -------
    dict
        The options, and under ``clients``, ``rounds`` and ``parameters``, by that number, what each run took:
        ``startup-seconds``, ``round-seconds`` of the fastest round and ``all-rounds-seconds`` by the clock,
        ``server-seconds`` of the processor in a round, ``processor-seconds`` of the whole run with its
        workers, ``peak-mb`` of the server, and ``load``, how many processes wanted to run.
    """
    varied = {name: [int(each) for each in numbers(name, getattr(options, name))] for name in _ACROSS}
    base = {name: int(getattr(options, f"base_{name}")) for name in _ACROSS}
    observer.phase("costs", sum(map(len, varied.values())))
    measured: dict[str, dict[str, Any]] = {across: {} for across in _ACROSS.values()}
    with Kept.under(options.keep, {**base, "workers": options.workers}) as kept:
        for name, values in varied.items():
            for value in values:
                piece = kept.piece(
                    f"{name}-{value}", partial(_measured, {**base, name: value}, options.workers)
                )
                place = piece["parameters"] if name == "hidden" else value
                measured[_ACROSS[name]][str(place)] = piece
                observer.advance(f"{name} {value}")
    found = {**options.settings("base_clients", "base_rounds", "base_hidden", "workers"), **measured}
    if options.pictures:
        folder = expand(options.pictures)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / COSTS, {"machine": machine(), **found})
        for path, svg in pictures(folder).items():
            path.write_text(svg, encoding="utf-8")
    return found


def _measured(chosen: Mapping[str, int], workers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        data = write_images(chosen["clients"], Path(folder))
        job = Job(clients=chosen["clients"], rounds=chosen["rounds"], steps=1, batch_size=BATCH)
        found = contend("many_clients", Task(job, str(data), workers, hidden=chosen["hidden"]))
    return {
        "startup-seconds": found["startup-seconds"],
        "round-seconds": min(found["round-seconds"]),
        "all-rounds-seconds": found["seconds"],
        "server-seconds": min(found["server-seconds"]),
        "processor-seconds": found["processor-seconds"],
        "peak-mb": found["peak-mb"],
        "parameters": found["parameters"],
        "load": os.getloadavg()[0],
    }


def pictures(folder: Path) -> dict[Path, str]:
    """Return the pictures of a folder by their paths, as the numbers beside them say."""
    found = read_json(folder / COSTS)
    return {folder / f"{across}.svg": _picture(across, found[across]) for across in _ACROSS.values()}


def _picture(across: str, runs: Mapping[str, Mapping[str, float]]) -> str:
    def curve(name: str) -> dict[float, float]:
        return {float(place): run[name] for place, run in runs.items()}

    shown = {"start-up": "startup-seconds", "a round": "round-seconds", "server in a round": "server-seconds"}
    if across == "rounds":
        shown = {"start-up": "startup-seconds", "all rounds": "all-rounds-seconds"}
    seconds = {label: curve(name) for label, name in shown.items()}
    seconds["whole run, processor"] = curve("processor-seconds")
    panels = [
        Panel("seconds", across, seconds),
        Panel("peak memory of the server, MB", across, {"server": curve("peak-mb")}, decades=False),
    ]
    return plot(panels, f"Seconds and memory of runs by their number of {across}")

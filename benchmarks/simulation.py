"""How fast the local simulation is: three jobs, each run by every contender in a process of its own.

``compute-bound`` asks whether the cores are used; ``overhead-bound`` asks what a client costs besides its
training; ``many-small`` what many clients of a small model gain side by side. Seconds are those of the
rounds, without imports, data and connecting, which are given apart.
"""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.simulation.launch import num_cores
from app.workflows.observer import Observer
from benchmarks.jobs import JOBS, Task, contend, write_data
from benchmarks.options import BenchmarkOptions, chosen
from strategies.core.errors import LetheError

BASELINE = "plain"


@dataclass(frozen=True)
class Contender:
    """One way to run a job."""

    module: str
    """In `benchmarks.contenders`."""
    workers: int = 1
    threads: int = 0
    """As in `Task`; 0 workers stand for all cores."""
    vectorise: str = "off"

    def told(self, task: Task) -> Task:
        """Return the task for this contender."""
        workers = self.workers or num_cores()
        return replace(task, workers=workers, threads=self.threads, vectorise=self.vectorise)


ON_RAY = ("lethe-on-ray", "flower")

CONTENDERS: Mapping[str, Contender] = {
    "plain": Contender("plain"),
    "plain-one-thread": Contender("plain", threads=1),
    "pfl": Contender("pfl_simulation"),
    "pfl-one-thread": Contender("pfl_simulation", threads=1),
    "lethe": Contender("lethe", workers=0),
    "lethe-one-worker": Contender("lethe"),
    "lethe-vectorised": Contender("lethe", workers=0, vectorise="auto"),
    "lethe-on-ray": Contender("lethe_on_ray", workers=0),
    "flower": Contender("flower", workers=0),
}


class Options(BenchmarkOptions):
    """Options of the benchmark."""

    scale: float = 1.0
    """Share of each job's clients, for a quick look."""
    repeats: int = 3
    """Runs of each contender, in turns; the median is reported."""
    ray: bool = False
    """Whether Flower's own simulation takes part: it takes minutes."""
    pfl_path: str = ""
    """Folder in which pfl is found, if it is not installed (``pip install --target``). Without pfl, it is
    left out and the result says so."""
    jobs: str = ""
    contenders: str = ""
    """Names of those to run, with commas between them; empty: all. The plain loop always runs."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Measure all contenders on all jobs.

    Returns
    -------
    dict
        ``notes``, and for each job ``job``, each contender's measurements, the ``ratios`` of the median
        seconds to those of the plain loop, and the ``processor-ratios`` of the processor time that all
        processes of a contender took in that run; with Flower on Ray, that of its own process alone.

    Raises
    ------
    BadInput
        If there is no job or contender of a name.
    """
    wanted = chosen("jobs", options.jobs, JOBS)
    among = chosen("contenders", options.contenders, CONTENDERS, always=BASELINE)
    names = [name for name in among if options.ray or name not in ON_RAY]
    notes = []
    if not options.pfl_path and find_spec("pfl") is None:
        names = [name for name in names if not name.startswith("pfl")]
        notes.append(
            "pfl is not installed and was left out; pip install --target <folder> pfl, and give the folder"
        )
    observer.phase("simulation", len(wanted) * len(names) * options.repeats)
    results: dict[str, Any] = {"notes": notes}
    with tempfile.TemporaryDirectory() as folder:
        for title in wanted:
            job = JOBS[title].scaled(options.scale)
            task = Task(job, str(write_data(job, Path(folder))))
            measured = _measure(names, task, options, observer)
            results[title] = {
                "job": vars(job),
                **measured,
                "ratios": ratios(measured),
                "processor-ratios": ratios(measured, "processor-seconds"),
            }
    return results


def ratios(measured: Mapping[str, Mapping[str, Any]], what: str = "seconds") -> dict[str, float]:
    """Return each contender's median seconds in relation to the plain loop's; nothing if that failed.

    `what` names other seconds of the median run.

    Examples
    --------
    >>> ratios({"plain": {"seconds": 4.0}, "lethe": {"seconds": 1.0}, "pfl": {"failed": "no module"}})
    {'plain': 1.0, 'lethe': 0.25}
    """
    if what not in measured[BASELINE]:
        return {}
    base = measured[BASELINE][what]
    return {name: round(m[what] / base, 3) for name, m in measured.items() if what in m}


def _measure(
    names: Sequence[str], task: Task, options: Options, observer: Observer
) -> dict[str, dict[str, Any]]:
    """Run the contenders in turns, so that a change in the machine's speed meets them all."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    path = [options.pfl_path] if options.pfl_path else []
    for _ in range(options.repeats):
        for name in names:
            contender = CONTENDERS[name]
            if name not in failed:
                try:
                    runs[name].append(contend(contender.module, contender.told(task), path))
                except LetheError as error:
                    failed[name] = str(error)
            observer.advance(name)
    return {name: {"failed": failed[name]} if name in failed else summary(runs[name]) for name in names}


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the run with the median time, with the times of all."""
    middle = statistics.median_low(run["seconds"] for run in runs)
    median = next(run for run in runs if run["seconds"] == middle)
    return {**median, "all-seconds": [run["seconds"] for run in runs]}

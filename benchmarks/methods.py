"""All forgetting methods on one table: a poisoned client of ten is forgotten, dense and after pruning.

For each partition and seed a federation with one backdoored client trains; `app.workflows.compare` lets every
method forget the client and retrains, first on the dense run and then on one that was pruned by magnitude
(OMP). Then, on the same dense run, several clients are forgotten one after another by the default method, and
each step's disparity stands beside that of the same request alone. Each of these pieces is measured in one
go, and its times are compared with one another only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from app.config.run_config import RunConfig
from app.workflows import ComparisonPlan, compare, resume, train
from app.workflows.observer import Observer
from app.workflows.opened import OpenedRun
from benchmarks.figures import Spread, kind, spread
from benchmarks.forgetting import ATTACKER, PARTITIONS, POISONED
from benchmarks.kept import Kept
from benchmarks.options import RunOptions
from benchmarks.sequence import disparities, sequence_rows
from strategies.core.errors import BadInput
from strategies.core.settings import split_list
from strategies.runs.folder import MODEL, RunFolder
from unlearning.request import ForgetRequest

COLUMNS: Mapping[str, str] = {
    "disparity": "disparity",
    "without MIA": "disparity_without_mia",
    "UA": "unlearning_accuracy",
    "MIA": "mia_efficacy",
    "RA": "retain_accuracy",
    "TA": "test_accuracy",
    "ASR": "attack_success_rate",
    "seconds": "seconds",
    "visits": "client_visits",
}
"""Column of a row -> figure of a comparison."""
GAPS = ("UA", "MIA", "RA", "TA", "ASR")


class Options(RunOptions):
    """Options of the benchmark."""

    data_name: str = "mnist"
    """``data.name``."""
    first_seed: int = 0
    methods: str = ""
    """Names separated by commas; empty: all that serve the request."""
    partitions: str = "iid,dirichlet-0.5"
    """Names separated by commas."""
    sparsities: str = "0,0.95"
    """Of the runs, separated by commas, each in [0, 1); 0: dense."""
    sequence: str = "3,5,7"
    """Clients that are forgotten one after another, separated by commas; empty: none."""
    keep: str = ""
    """Folder in which runs and results are kept: a call makes what is missing there and reads the rest, so
    that calls for single seeds, partitions and sparsities add up. Empty: nothing is kept."""
    overrides: str = ""
    """Further keys of the run config, as ``section.key=value`` with blanks between them."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return a table per partition, dense and sparse, and one of the sequence of requests."""
    clients, methods = split_list(options.sequence), split_list(options.methods)
    sparsities = [float(each) for each in split_list(options.sparsities)]
    keys = [*POISONED, f"data.name={options.data_name}", *options.keys(), *options.overrides.split()]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    results: dict[str, Any] = {"settings": options.settings()}
    steps: list[dict[str, Any]] = []
    with Kept.under(options.keep, {"keys": keys, "methods": options.methods}) as kept:
        for partition in split_list(options.partitions):
            its_keys = [*keys, *_keys_of(partition)]
            studies = [Study(its_keys, partition, seed, kept, observer) for seed in seeds]
            for sparsity in sparsities:
                made = [study.compared(sparsity, methods) for study in studies]
                results[f"{partition}, {kind(sparsity)}"] = rows(made)
            sequences = [study.sequence(clients) for study in studies if clients]
            steps += [{"partition": partition, **row} for row in sequence_rows(sequences)]
    return {**results, "one after another": steps} if steps else results


def _keys_of(partition: str) -> Sequence[str]:
    if partition not in PARTITIONS:
        raise BadInput(f"unknown partition '{partition}'; known partitions: {', '.join(PARTITIONS)}")
    return PARTITIONS[partition]


def rows(documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return comparisons, one per seed, as one row per model: each figure, its gap, and the speed.

    Parameters
    ----------
    documents
        As `app.workflows.compare` returns them, of one seed each.
    """
    tables = [{"before": d["before"], "retrain": d["retrain"], **d["methods"]} for d in documents]
    return [{"model": name, **_row([table[name] for table in tables])} for name in tables[0]]


def _row(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def over_seeds(figure: str, of: Callable[[float], float] = lambda value: value) -> Spread:
        values = (each.get(figure, {}).get("mean") for each in seeds)
        return spread(of(value) for value in values if value is not None)

    row: dict[str, Any] = {}
    for column, figure in COLUMNS.items():
        row[column] = over_seeds(figure)
        if column in GAPS:
            row[f"{column} gap"] = over_seeds(f"{figure}_gap")
    return {**row, "times faster": over_seeds("seconds_ratio", lambda ratio: 1.0 / ratio)}


@dataclass(frozen=True)
class Study:
    """A run of one partition and seed, and what is done with it, piece by piece."""

    keys: Sequence[str]
    """Of the run config, but for the seed."""
    partition: str
    seed: int
    kept: Kept
    """Where runs and pieces lie."""
    observer: Observer

    def compared(self, sparsity: float, methods: tuple[str, ...]) -> Any:
        """Return the comparison of the methods, on the run pruned to a sparsity; 0 leaves it dense."""
        return self._piece(kind(sparsity), partial(self._compare, sparsity, methods))

    def sequence(self, clients: Sequence[str]) -> Any:
        """Forget clients one after another by the default method; return what `disparities` does."""
        return self._piece(f"clients {' '.join(clients)}", lambda: disparities(self._opened(), clients))

    def _piece(self, what: str, make: Callable[[], Any]) -> Any:
        return self.kept.piece(f"{self.partition}, {what}, seed {self.seed}", make)

    def _compare(self, sparsity: float, methods: tuple[str, ...]) -> dict[str, Any]:
        opened = self._opened()
        settings = opened.session.config.forget
        if sparsity > 0:
            settings = settings.model_copy(update={"prune": "omp", "sparsity": sparsity})
        plan = ComparisonPlan(ForgetRequest(clients=(ATTACKER,)), methods, settings=settings, relearn=False)
        return compare(opened.folder, plan, 1, self.observer)

    def _opened(self) -> OpenedRun:
        home, name = self.kept.path / "runs", f"{self.partition}-{self.seed}"
        if (home / name / MODEL).exists():
            folder = RunFolder.open(home / name)
        elif (home / name).exists():
            folder = resume(RunFolder.open(home / name), self.observer)
        else:
            named = [f"run.seed={self.seed}", f"run.home={home.absolute()}", f"run.name={name}"]
            folder = train(RunConfig().with_overrides([*self.keys, *named]), self.observer)
        return OpenedRun.of(folder, self.observer)

"""All forgetting methods on one table: a poisoned client of ten is forgotten, dense and after pruning.

For each partition a federation with one backdoored client trains; `app.workflows.compare` lets every method
forget the client and retrains, over several seeds, first on the dense runs and then on runs that were pruned
by magnitude (OMP). Then, on the same dense runs, several clients are forgotten one after another by the
default method, and each step's disparity stands beside that of the same request alone.
"""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.config import RunConfig
from app.workflows import Contest, compare, train
from app.workflows.forgetting import OpenedRun
from app.workflows.observer import Observer, Quiet
from benchmarks.forgetting import PARTITIONS
from benchmarks.jobs import machine
from strategies.cohort import Cohort
from strategies.errors import BadInput, LetheError
from strategies.run_folder import RunFolder
from strategies.settings import split_list
from unlearning import forgetting
from unlearning.audit import ORIGINAL, AuditedModel, audit
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import AuditSettings, ForgetSettings

ATTACKER = "3"
RETRAIN = "retrain"
COLUMNS: Mapping[str, str] = {
    "disparity": "disparity",
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
_RUN = (
    "data.clients=10",
    "data.public=0.05",
    "train.learning-rate=0.05",
    "attack.kind=backdoor",
    f"attack.clients={ATTACKER}",
    "run.name=study",
    "run.evaluate-every=1000000",
)


def run(  # noqa: PLR0913  # a parameter per option
    observer: Observer | None = None,
    *,
    data_name: str = "mnist",
    data_root: str = "",
    train_examples: int = 6_000,
    rounds: int = 15,
    seeds: int = 3,
    methods: str = "",
    partitions: str = "iid,dirichlet-0.5",
    sparsity: float = 0.95,
    sequence: str = "3,5,7",
    overrides: str = "",
) -> dict[str, Any]:
    """Return a table per partition, dense and sparse, and one of the sequence of requests.

    Parameters
    ----------
    observer
        Told of each run.
    data_name, data_root
        ``data.name`` and ``data.root``: where torchvision's data set lies.
    train_examples
        Size of the training data before the public share is held out; 0 for all.
    rounds
        Of training.
    seeds
        Number of seeds, from 0.
    methods
        Names separated by commas; empty: all that serve the request.
    partitions
        Names separated by commas.
    sparsity
        Of the pruned runs; 0: none are made.
    sequence
        Clients that are forgotten one after another, separated by commas; empty: none.
    overrides
        Further keys of the run config, as ``section.key=value`` with blanks between them.
    """
    options = {name: value for name, value in locals().items() if name != "observer"}
    observer = observer or Quiet()
    results: dict[str, Any] = {"machine": machine(), "settings": options}
    steps: list[dict[str, Any]] = []
    for partition in split_list(str(partitions)):
        size = [f"data.name={data_name}", f"data.root={data_root}", f"data.train-limit={train_examples}"]
        with tempfile.TemporaryDirectory() as home:
            keys = [*_RUN, *size, *_keys_of(partition), f"run.rounds={rounds}", *str(overrides).split()]
            study = Study.trained([*keys, f"run.home={home}"], seeds, split_list(str(methods)), observer)
            results[f"{partition}, dense"] = rows(study.compared(0.0))
            if sparsity > 0:
                results[f"{partition}, {100 * sparsity:g} % sparse"] = rows(study.compared(sparsity))
            steps += [{"partition": partition, **row} for row in study.sequence(split_list(str(sequence)))]
    return {**results, "one after another": steps} if steps else results


def _keys_of(partition: str) -> Sequence[str]:
    if partition not in PARTITIONS:
        raise BadInput(f"unknown partition '{partition}'; known partitions: {', '.join(PARTITIONS)}")
    return PARTITIONS[partition]


def rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a comparison as one row per model: each figure, its gap to retraining, and the speed.

    Parameters
    ----------
    document
        As `app.workflows.compare` returns it.
    """
    models = {"before": document["before"], RETRAIN: document["retrain"], **document["methods"]}
    return [{"model": name, **_row(figures)} for name, figures in models.items()]


def _row(figures: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for column, figure in COLUMNS.items():
        row[column] = figures.get(figure)
        if column in GAPS:
            row[f"{column} gap"] = figures.get(f"{figure}_gap")
    ratio = figures.get("seconds_ratio", {}).get("mean")
    return {**row, "times faster": 1.0 / ratio if ratio else None}


@dataclass(frozen=True)
class Study:
    """A trained run in a folder of its own, and what is done with it.

    Parameters
    ----------
    folder
        Of the run with the first seed.
    seeds
        Number of seeds.
    methods
        Names of those compared.
    observer
        Told of everything that is done.
    """

    folder: RunFolder
    seeds: int
    methods: tuple[str, ...]
    observer: Observer

    @staticmethod
    def trained(keys: Sequence[str], seeds: int, methods: tuple[str, ...], observer: Observer) -> "Study":
        """Train the first run."""
        folder = train(RunConfig().with_overrides(list(keys)), observer)
        return Study(folder, seeds, methods, observer)

    def compared(self, sparsity: float) -> dict[str, Any]:
        """Return the comparison of the methods, on runs pruned to a sparsity; 0 leaves them dense."""
        settings = OpenedRun.of(self.folder, None).session.config.forget
        if sparsity > 0:
            settings = settings.model_copy(update={"prune": "omp", "sparsity": sparsity})
        contest = Contest(ForgetRequest(clients=(ATTACKER,)), self.methods, settings=settings, relearn=False)
        return compare(self.folder, contest, self.seeds, self.observer)

    def sequence(self, clients: Sequence[str]) -> list[dict[str, Any]]:
        """Forget clients one after another by the default method, on the run of every seed."""
        folders = [self.folder]
        if clients and self.seeds > 1:
            folders += [RunFolder.open(path) for path in sorted((self.folder.path / "seeds").iterdir())]
        found = [disparities(OpenedRun.of(f, self.observer), clients) for f in folders if clients]
        return [
            {
                "step": number + 1,
                "client": client,
                "after others": statistics.fmean(each[number].after_others for each in found),
                "alone": statistics.fmean(each[number].alone for each in found),
            }
            for number, client in enumerate(clients)
        ]


@dataclass(frozen=True)
class Step:
    """Disparity to retraining of one request, in points: after those before it, and by itself."""

    after_others: float
    alone: float


def disparities(opened: OpenedRun, clients: Sequence[str]) -> list[Step]:
    """Forget clients one after another, and each alone, by the run's default method.

    Parameters
    ----------
    opened
        A finished run.
    clients
        Client-ids, in the order of the requests.

    Raises
    ------
    LetheError
        If a disparity cannot be had because a figure was not measured.
    """
    settings = opened.session.config.forget
    steps = []
    with opened.session.cohort(None) as cohort:
        run = opened.run
        for client in clients:
            request = ForgetRequest(clients=(client,))
            opened.observer.phase(f"forget client {client} after {len(run.forgotten)} others", 2)
            disparity, following = _served(run, request, settings, cohort)
            opened.observer.advance("after others")
            alone = _served(opened.run, request, settings, cohort)[0] if run.forgotten else disparity
            opened.observer.advance("alone")
            steps.append(Step(disparity, alone))
            run = following
    return steps


def _served(
    run: TrainedRun, request: ForgetRequest, settings: ForgetSettings, cohort: Cohort
) -> tuple[float, TrainedRun]:
    """Return a request's disparity, and the run as the next request finds it."""
    made = {
        name: forgetting.forget(run, request, name, settings, cohort) for name in (settings.method, RETRAIN)
    }
    models = {name: AuditedModel(result.flat, result.seconds) for name, result in made.items()}
    report = audit(
        run,
        request,
        {ORIGINAL: AuditedModel(run.final, run.train_seconds), **models},
        cohort,
        AuditSettings(),
    )
    disparity = report.comparisons[settings.method].disparity
    if disparity is None:
        raise LetheError(f"{request.name}: a rate could not be measured, so there is no disparity")
    following = replace(run, final=made[settings.method].flat, forgotten=(*run.forgotten, request))
    return disparity, following

"""What forgetting a poisoned client leaves, and what it takes: subtraction, distillation and retraining.

For each partition and seed, a federation with one backdoored client trains on MNIST; then the client is
forgotten by each method and the run is trained again without it, all in one process tree, and every model is
audited. Seconds are those of the methods alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from app.report.comparison_tables import OTHER_SEED
from app.workflows import other_seeds
from app.workflows.observer import Observer
from app.workflows.opened import OpenedRun
from app.workflows.training import train
from benchmarks.figures import each_figure
from benchmarks.options import RunOptions, chosen
from benchmarks.rounds import local_clients
from unlearning.request import ForgetRequest

FIGURES = (
    "test_accuracy",
    "retain_accuracy",
    "unlearning_accuracy",
    "mia_efficacy",
    "attack_success_rate",
    "seconds",
)
METHODS = ("subtract", "distill")
PARTITIONS: Mapping[str, Sequence[str]] = {
    "iid": (),
    "dirichlet-0.5": ("data.partition=dirichlet", "data.alpha=0.5"),
}
ATTACKER = "3"
POISONED = (
    "data.clients=10",
    "data.public=0.05",
    "train.learning-rate=0.05",
    "attack.kind=backdoor",
    f"attack.clients={ATTACKER}",
    "run.evaluate-every=1000000",
)
"""Ten clients, of which one has a backdoor, as keys of the run config."""
_REQUEST = ForgetRequest(clients=(ATTACKER,))


class Options(RunOptions):
    """Options of the benchmark."""

    train_examples: int = 12_000
    partitions: str = ""
    """Names of those to measure, with commas between them; empty: all."""
    overrides: str = ""
    """Further keys of the run config, as ``section.key=value`` with blanks between them."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return mean and standard deviation of each figure, by partition and model."""
    wanted = chosen("partitions", options.partitions, PARTITIONS)
    observer.phase("forgetting", len(wanted) * options.seeds)
    found: dict[str, Any] = {}
    for partition in wanted:
        keys = [
            "data.name=mnist",
            *POISONED,
            *PARTITIONS[partition],
            *options.keys(),
            *options.overrides.split(),
        ]
        tables = []
        for seed in range(options.seeds):
            tables.append(_one([*keys, f"run.seed={seed}"]))
            observer.advance(f"{partition}, seed {seed}", tables[-1]["distill"])
        found[partition] = {model: each_figure([table[model] for table in tables]) for model in tables[0]}
    settings = options.settings("train_examples", "rounds", "seeds", "overrides")
    return {"settings": settings, "partitions": found}


def _one(keys: Sequence[str]) -> dict[str, dict[str, float]]:
    with local_clients(keys) as (session, grid):
        config = session.config
        opened = OpenedRun.of(train(config, None, grid), None)
        with opened.session.cohort(grid) as cohort:
            for method in ("retrain", *METHODS):
                opened.forget(_REQUEST, method, config.forget, cohort)
            report = opened.audit(_REQUEST, METHODS, config.audit, cohort).to_json()
    return table_of(report)


def table_of(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return an audit report's figures by model; retraining with another seed has one name for all seeds."""
    table = {}
    for name, figures in report["models"].items():
        row = OTHER_SEED if name.startswith(other_seeds.PREFIX) else name
        table[row] = {figure: float(figures[figure]) for figure in FIGURES}
    for method in METHODS:
        for form in ("disparity", "disparity_without_mia"):
            table[method][form] = report["comparisons"][method][form]
        table[method]["times_faster"] = table["retrain"]["seconds"] / table[method]["seconds"]
    return table

"""What forgetting a poisoned client leaves, and what it takes: subtraction, distillation and retraining.

For each partition and seed, a federation with one backdoored client trains on MNIST; then the client is
forgotten by each method and the run is trained again without it, all in one process tree, and every model is
audited. Seconds are those of the methods alone.
"""

import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.config.run_config import RunConfig
from app.report.comparison_tables import OTHER_SEED
from app.workflows import other_seeds
from app.workflows.forgetting import OpenedRun
from app.workflows.observer import Observer, Quiet
from app.workflows.session import Session
from app.workflows.training import train
from benchmarks.jobs import chosen, machine
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
_REQUEST = ForgetRequest(clients=("3",))
_RUN = (
    "data.name=mnist",
    "data.clients=10",
    "data.public=0.05",
    "train.learning-rate=0.05",
    "attack.kind=backdoor",
    "attack.clients=3",
    "run.evaluate-every=1000000",
)


def run(
    observer: Observer | None = None,
    *,
    data_root: str = "",
    train_examples: int = 12_000,
    rounds: int = 15,
    seeds: int = 3,
    partitions: str = "",
    overrides: str = "",
) -> dict[str, Any]:
    """Return mean and standard deviation of each figure, by partition and model.

    Parameters
    ----------
    observer
        Told of each run.
    data_root
        Where torchvision's MNIST lies (``data.root``).
    train_examples
        Size of the training data before the public share is held out; 0 for all.
    rounds
        Of training.
    seeds
        Number of seeds, from 0.
    partitions
        Names of those to measure, with commas between them; empty: all.
    overrides
        Further keys of the run config, as ``section.key=value`` with blanks between them.
    """
    wanted = chosen("partitions", partitions, PARTITIONS)
    settings = {"train_examples": train_examples, "rounds": rounds, "seeds": seeds, "overrides": overrides}
    observer = observer or Quiet()
    observer.phase("forgetting", len(wanted) * seeds)
    results: dict[str, Any] = {"machine": machine(), "settings": settings, "partitions": {}}
    for partition in wanted:
        tables = []
        for seed in range(seeds):
            size = [f"data.root={data_root}", f"data.train-limit={train_examples}", f"run.rounds={rounds}"]
            tables.append(
                _one([*_RUN, *PARTITIONS[partition], *size, *overrides.split(), f"run.seed={seed}"])
            )
            observer.advance(f"{partition}, seed {seed}", tables[-1]["distill"])
        results["partitions"][partition] = _summary(tables)
    return results


def _one(keys: Sequence[str]) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as home:
        config = RunConfig().with_overrides([*keys, f"run.home={home}"])
        with Session.of(config).local_grid() as grid:
            folder = train(config, None, grid)
            opened = OpenedRun.of(folder, None)
            with opened.session.cohort(grid) as cohort:
                opened.forget(_REQUEST, "retrain", config.forget, cohort)
                for method in METHODS:
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


def _summary(tables: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    models = tables[0]
    return {
        model: {figure: _mean_std(table[model][figure] for table in tables) for figure in models[model]}
        for model in models
    }


def _mean_std(values: Iterable[float]) -> dict[str, float]:
    listed = list(values)
    spread = statistics.stdev(listed) if len(listed) > 1 else 0.0
    return {"mean": statistics.fmean(listed), "std": spread}

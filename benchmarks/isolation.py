"""Groups of clients trained apart: the price in accuracy, and what forgetting takes of a retraining.

For each data set, partition, number of groups and seed a federation of ten clients trains; then one client is
forgotten by retraining, which is that of its group. Accuracies are those of the ensemble on the test data.
Seconds and visits are shares of those that retraining takes with the same seed and one group.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from app.forgettings.folder import read_result
from app.report.comparison_figure import half_interval
from app.workflows.observer import Observer
from app.workflows.opened import OpenedRun
from app.workflows.training import train
from benchmarks.figures import each_figure
from benchmarks.forgetting import PARTITIONS
from benchmarks.kept import Kept
from benchmarks.options import DigitsOptions, SeedsOptions, chosen, numbers
from benchmarks.rounds import local_clients
from strategies.client.evaluation import evaluate
from strategies.runs.folder import RunFolder
from unlearning.request import ForgetRequest

CLIENTS = 10
_REQUEST = ForgetRequest(clients=("3",))


class Options(DigitsOptions, SeedsOptions):
    """Options of the benchmark."""

    groups: str = "1,2,5,10"
    """Numbers of groups (``train.isolation``), with commas between them; the first is the base."""
    partitions: str = ""
    """Names of those to measure, with commas between them; empty: all."""
    rounds: int = 15
    """Of training."""
    train_examples: int = 6_000
    """Of MNIST."""
    overrides: str = ""
    """Further keys of the run config, as ``section.key=value`` with blanks between them."""
    keep: str = ""
    """Folder that keeps each run's figures, so that a call goes on where another stopped; empty: none."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return accuracies with their intervals, and the shares of retraining, by data set and partition."""
    counts = [int(each) for each in numbers("groups", options.groups)]
    wanted = chosen("partitions", options.partitions, PARTITIONS)
    settings = options.settings("rounds", "train_examples", "overrides")
    data = options.data_sets(options.train_examples)
    observer.phase("isolation", len(data) * len(wanted) * len(counts) * options.seeds)
    found: dict[str, Any] = {}
    with Kept.under(options.keep, settings) as kept:
        for name, where in data.items():
            for partition in wanted:
                keys = [*where, *PARTITIONS[partition], *_keys(options)]
                seeds = []
                for seed in range(options.seeds):
                    table = {}
                    for count in counts:
                        own = [*keys, f"run.seed={seed}", f"train.isolation={count}"]
                        piece = f"{name}-{partition}-{count}-{seed}"
                        table[count] = kept.piece(piece, partial(_one, own))
                        observer.advance(piece, table[count])
                    seeds.append(table)
                found[f"{name}, {partition}"] = rows_of(seeds)
    return {"settings": {**settings, "seeds": options.seeds}, "data": found}


def rows_of(seeds: Sequence[Mapping[int, Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Return a row per number of groups, with means over seeds and 95 % intervals (Student's t).

    Parameters
    ----------
    seeds
        Per seed: number of groups -> figures; the first number is what the others are compared with, seed by
        seed.
    """
    base, rows = next(iter(seeds[0])), []
    for count in seeds[0]:
        pairs = [(table[count], table[base]) for table in seeds]
        figures = [
            {
                "accuracy": own["accuracy"],
                "after": own["after"],
                "loss-in-accuracy": first["accuracy"] - own["accuracy"],
                "seconds-share": own["seconds"] / first["seconds"],
                "visits-share": own["visits"] / first["visits"],
            }
            for own, first in pairs
        ]
        means = each_figure(figures)
        interval = {name: half_interval(each["std"], len(seeds)) for name, each in means.items()}
        rows.append(
            {"groups": count}
            | {name: {"mean": each["mean"], "interval": interval[name]} for name, each in means.items()}
        )
    return rows


def _keys(options: Options) -> list[str]:
    fixed = [f"data.clients={CLIENTS}", f"run.rounds={options.rounds}", "run.evaluate-every=1000000"]
    return [*fixed, *options.overrides.split()]


def _one(keys: Sequence[str]) -> dict[str, float]:
    """Train, forget, and return the accuracies before and after, and what forgetting took."""
    with local_clients(keys) as (session, grid):
        folder = train(session.config, None, grid)
        opened = OpenedRun.of(folder, None)
        with opened.session.cohort(grid) as cohort:
            name = opened.forget(_REQUEST, "retrain", session.config.forget, cohort)
        return {**_taken(folder, name), **_accuracies(opened, name)}


def _taken(folder: RunFolder, name: str) -> dict[str, float]:
    result = read_result(folder.forget_folder(name))
    return {"seconds": float(result["seconds"]), "visits": float(result["traffic"]["visits"])}


def _accuracies(opened: OpenedRun, name: str) -> dict[str, float]:
    """Return the accuracies on the test data of the run's model and of the one after a forgetting."""
    run, test = opened.run, opened.session.server_data.test
    assert test is not None  # Both data sets have some
    models = {"accuracy": run.final, "after": opened.following(name).run.final}
    return {figure: evaluate(run.model(flat), test).accuracy for figure, flat in models.items()}

"""What privacy and pruning cost and bring: time of a local step, bytes, accuracy at equal ε, ε itself.

Accuracy is measured on MNIST. At equal ε every contender spends the same; what differs is how many parameters
the noise is spread over, how large the network is, and how much of it each client trains.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from app.client.node import pick_device
from app.workflows.observer import Observer
from app.workflows.training import train
from benchmarks.blocks import block, built_in
from benchmarks.figures import mean_std
from benchmarks.options import RunOptions, numbers
from benchmarks.private_steps import measure
from benchmarks.rounds import local_clients
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.layers.privacy.accounting import Spend, epsilon_of

SCORES = ("fisher", "random", "ordered", "magnitude")


class Options(RunOptions):
    """Options of the benchmark; those of `RunOptions` are of the runs that accuracy is measured on."""

    rounds: int = 10
    first_seed: int = 0
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``auto``."""
    threads: int = 0
    """Of torch, for the time of a step; 0 leaves them as they are."""
    steps: int = 50
    batch_size: int = 32
    """Steps that are timed, and examples of each."""
    keep: float = 0.4
    """For the bytes."""
    epsilons: str = "2,4,8"
    keeps: str = "0.5,0.75"
    scores: str = ",".join(SCORES)
    """Of the runs that are compared, separated by commas."""
    unit: str = "example"
    learning_rate: float = 0.5
    clip_norm: float = 1.0
    model: str = "cnn"
    width: int = 8
    hidden: int = 64
    workers: int = 0
    """Of these runs; 0 workers are all cores."""
    parts: str = "steps,bytes,epsilon,accuracy"
    """What is measured: ``steps``, ``bytes``, ``epsilon``, ``accuracy``, separated by commas."""

    def keys(self) -> list[str]:
        """Return what all runs have in common, as keys of the run config."""
        return [
            *("data.name=mnist", "data.clients=10", "data.public=0.05", *super().keys()),
            *(f"run.device={self.device}", f"run.workers={self.workers}"),
            *(f"model.name={self.model}", f"model.hidden={self.hidden}"),
            *([f"model.width={self.width}"] if self.model == "cnn" else []),
            *(f"train.learning-rate={self.learning_rate}", "train.momentum=0.0"),
            *(f"privacy.unit={self.unit}", f"privacy.clip-norm={self.clip_norm}", "privacy.delta=1e-5"),
            *("privacy.accountant=rdp", "privacy.randomness=seeded"),
            *(f"run.evaluate-every={self.rounds}", "log.enabled=false"),
        ]


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return what the parts measure, by part."""
    known: Mapping[str, Callable[[], Any]] = {
        "steps": lambda: _steps(options, observer),
        "bytes": lambda: _bytes(options.keep),
        "epsilon": _epsilon,
        "accuracy": lambda: _accuracy(options, observer),
    }
    parts = options.parts.split(",")
    if unknown := [part for part in parts if part not in known]:
        raise BadInput(f"benchmark privacy: unknown part '{unknown[0]}'; parts are {', '.join(known)}")
    return {part: known[part]() for part in parts}


def _steps(options: Options, observer: Observer) -> Mapping[str, dict[str, dict[str, float]]]:
    """Return milliseconds of a local step by model and engine, and how they relate to a plain one."""
    if options.threads:
        torch.set_num_threads(options.threads)
    return measure(options.steps, options.batch_size, pick_device(options.device), observer)


def _bytes(keep: float) -> dict[str, dict[str, float]]:
    """Return the bytes of one encoded message with a model, dense and in part, and what is saved."""
    from flwr.app import RecordDict

    from app.messages.codec import dump

    found: dict[str, dict[str, float]] = {}
    for name in ("mlp", "cnn", "resnet18"):
        model = built_in(name)
        layout = wire.Layout.of(model.state_dict())
        index, small = block(model, keep, "random")
        flat = layout.flatten(model.state_dict())
        dense = len(dump(RecordDict({wire.ARRAYS: wire.FlatRecord(flat, layout)})))
        part = len(dump(RecordDict({wire.ARRAYS: wire.FlatRecord(flat[index], small)})))
        found[name] = {
            "keep": keep,
            "dense": dense,
            "block": part,
            "saved-percent": 100 * (1 - part / dense),
        }
    return found


def _epsilon() -> dict[str, float]:
    """Return ε of 50 rounds of 19 steps with σ = 1 and q = 32/600, by both accountants and dp-accounting."""
    import dp_accounting
    from dp_accounting import rdp

    history = (Spend(1.0, 32 / 600, 50 * 19),)
    step = dp_accounting.PoissonSampledDpEvent(32 / 600, dp_accounting.GaussianDpEvent(1.0))
    independent = rdp.RdpAccountant()
    independent.compose(dp_accounting.SelfComposedDpEvent(step, 50 * 19))
    ours = epsilon_of(history, 1e-5, "rdp")
    theirs = float(independent.get_epsilon(1e-5))
    prv = epsilon_of(history, 1e-5, "prv")
    return {"rdp": ours, "dp-accounting": theirs, "prv": prv, "difference-percent": 100 * (ours / theirs - 1)}


def _contenders(options: Options) -> dict[str, list[str]]:
    """Return the keys of each contender by its name: the dense network, and every selection and share."""
    pruned = {
        f"{score}, keep {keep:g}": [
            *("strategy.name=pruned-dp", f"strategy.score={score}", f"strategy.keep={keep}"),
        ]
        for score in options.scores.split(",")
        for keep in numbers("keeps", options.keeps)
    }
    return {"dense": [], **pruned}


def _accuracy(options: Options, observer: Observer) -> dict[str, dict[str, dict[str, float]]]:
    """Return the test accuracy by ε and contender over the seeds, and how far it is from the dense network's.

    The difference is taken seed by seed, as both have the same data, initial model and noise to begin with.
    """
    epsilons, contenders = numbers("epsilons", options.epsilons), _contenders(options)
    observer.phase("accuracy", len(epsilons) * len(contenders) * options.seeds)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for epsilon in epsilons:
        results: dict[str, list[float]] = {name: [] for name in contenders}
        for name, own in contenders.items():
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                keys = [*options.keys(), f"privacy.epsilon={epsilon}", *own, f"run.seed={seed}"]
                with local_clients(keys) as (session, grid):
                    final = train(session.config, None, grid).read_summary()["final"]
                results[name].append(float(final["test-accuracy"]))
                observer.advance(f"ε {epsilon:g}, {name}, seed {seed}", {"accuracy": results[name][-1]})
        found[f"{epsilon:g}"] = {
            name: mean_std(values) | _over_dense(values, results["dense"]) for name, values in results.items()
        }
    return found


def _over_dense(values: Sequence[float], dense: Sequence[float]) -> dict[str, float]:
    spread = mean_std(value - other for value, other in zip(values, dense, strict=True))
    return {f"over-dense-{figure}": value for figure, value in spread.items()}

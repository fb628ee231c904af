"""What privacy and pruning cost and bring: time of a local step, bytes, accuracy at equal ε, ε itself.

Accuracy is measured on MNIST. At equal ε every contender spends the same; what differs is how many parameters
the noise is spread over, how large the network is, and how much of it each client trains.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import nn

from app.client.node import pick_device
from app.workflows.observer import Observer
from app.workflows.training import train
from benchmarks.blocks import block, built_in, kept_neurons
from benchmarks.figures import mean_std
from benchmarks.jobs import INPUT_SHAPE, NUM_GROUPS
from benchmarks.options import RunOptions, numbers
from benchmarks.rounds import local_clients
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.secret_random import Randomness, RandomStream
from strategies.layers.privacy.accounting import Spend, epsilon_of
from strategies.layers.privacy.clipping import ClippedSum
from strategies.layers.privacy.training import PrivateTrainer
from strategies.models.neurons import hidden_groups
from strategies.models.subnetwork import subnetwork

SCORES = ("fisher", "random", "ordered", "magnitude")
Step = Callable[[], None]


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


def _steps(options: Options, observer: Observer) -> dict[str, dict[str, float]]:
    """Return milliseconds of a local step of the cnn, in turns, and how they relate."""
    if options.threads:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(options.batch_size, *INPUT_SHAPE, generator=generator).to(device)
    y = torch.randint(0, NUM_GROUPS, (options.batch_size,), generator=generator).to(device)
    contenders: dict[str, Step] = {
        "plain": _plain(_cnn(1.0, device), x, y),
        "hooks": _hooks(_cnn(1.0, device), x, y),
        "two-pass ghost": _two_passes(_cnn(1.0, device), x, y),
        "private": _private(_cnn(1.0, device), x, y),
        "plain, keep 0.5": _plain(_cnn(0.5, device), x, y),
        "private, keep 0.5": _private(_cnn(0.5, device), x, y),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    observer.phase("steps", options.steps)
    for turn in range(options.steps + 3):
        for name, step in contenders.items():
            began = _now(device)
            step()
            if turn >= 3:  # the first ones warm up
                seconds[name].append(_now(device) - began)
        observer.advance(f"step {turn}")
    median = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    return {
        "milliseconds": median,
        "ratios": {
            "private to plain (at most 1.7)": median["private"] / median["plain"],
            "hooks to private (at least 3)": median["hooks"] / median["private"],
            "two-pass ghost to private": median["two-pass ghost"] / median["private"],
            "private, keep 0.5, to plain (at most 1.5)": median["private, keep 0.5"] / median["plain"],
        },
    }


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _cnn(keep: float, device: torch.device) -> nn.Module:
    model = built_in("cnn")
    return subnetwork(model, hidden_groups(model), kept_neurons(model, keep, "random")).to(device)


def _sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), 0.1, fused=True)


def _stepping(optimizer: torch.optim.Optimizer, loss: Callable[[], Any]) -> Step:
    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def _plain(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Step:
    return _stepping(_sgd(model), lambda: nn.functional.cross_entropy(model(x), y))


def _hooks(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Step:
    """Opacus' default; its norms of the cnn's convolutions are wrong (see docs/privacy.md)."""
    module = GradSampleModule(model)
    optimizer = DPOptimizer(_sgd(model), **_noised(x))
    return _stepping(optimizer, lambda: nn.functional.cross_entropy(module(x), y))


def _two_passes(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Step:
    """Opacus' ghost clipping; its norms of the cnn's convolutions are those of `_hooks`."""
    module = GradSampleModuleFastGradientClipping(model, max_grad_norm=1.0)
    optimizer = DPOptimizerFastGradientClipping(_sgd(model), **_noised(x))
    criterion = DPLossFastGradientClipping(module, optimizer, nn.CrossEntropyLoss())
    return _stepping(optimizer, lambda: criterion(module(x), y))


def _noised(x: torch.Tensor) -> dict[str, Any]:
    """Return what an optimiser of Opacus is told."""
    noise = torch.Generator(device=x.device)
    return {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "expected_batch_size": len(x), "generator": noise}


def _private(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Step:
    plain = _sgd(model)
    trainer, noise = PrivateTrainer(1.0, 1.0, Randomness(secret=True)), RandomStream.secret()
    clipped, parameters = ClippedSum(model, 1.0).__enter__(), list(model.parameters())

    def step() -> None:
        clipped.backward(nn.functional.cross_entropy(model(x), y, reduction="none"))
        trainer.add_noise(parameters, len(x), noise)
        plain.step()

    return step


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

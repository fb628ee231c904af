"""What privacy and pruning cost and bring: time of a local step, bytes, accuracy at equal ε, ε itself.

Accuracy is measured on MNIST. At equal ε every contender spends the same; what differs is how many parameters
the noise is spread over, how large the network is, and how much of it each client trains.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import nn

from app.client.node import pick_device
from app.config.run_config import RunConfig
from app.config.settings import ModelSettings
from app.models.built_in import build_model
from app.workflows.observer import Observer, Quiet
from app.workflows.session import Session
from app.workflows.training import train
from benchmarks.jobs import INPUT_SHAPE, NUM_GROUPS, machine
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.secret_random import Randomness, RandomStream
from strategies.layers.privacy.accounting import Spend, epsilon_of
from strategies.layers.privacy.clipping import ClippedSum
from strategies.layers.privacy.training import PrivateTrainer
from strategies.models.neurons import hidden_groups
from strategies.models.subnetwork import block_index, subnetwork
from strategies.pruned_dp.pruned_dp import Pruning
from strategies.pruned_dp.settings import PrunedSettings

SCORES = ("fisher", "random", "ordered", "magnitude")
Step = Callable[[], None]


def run(  # noqa: PLR0913 (each is an option of the command line)
    observer: Observer | None = None,
    *,
    data_root: str = "",
    device: str = "cpu",
    threads: int = 0,
    steps: int = 50,
    batch_size: int = 32,
    keep: float = 0.4,
    epsilons: str = "2,4,8",
    keeps: str = "0.5,0.75",
    scores: str = ",".join(SCORES),
    unit: str = "example",
    rounds: int = 10,
    seeds: int = 3,
    first_seed: int = 0,
    train_examples: int = 6000,
    learning_rate: float = 0.5,
    clip_norm: float = 1.0,
    model: str = "cnn",
    width: int = 8,
    hidden: int = 64,
    workers: int = 0,
    parts: str = "steps,bytes,epsilon,accuracy",
) -> dict[str, Any]:
    """Measure.

    Parameters
    ----------
    observer
        Told of each measurement.
    data_root
        Where torchvision's MNIST lies (``data.root``); needed for accuracy.
    device
        ``cpu``, ``cuda`` or ``auto``.
    threads
        Of torch, for the time of a step; 0 leaves them as they are.
    steps, batch_size
        Steps that are timed, and examples of each.
    keep
        For the bytes.
    epsilons, keeps, scores
        Of the runs that are compared, separated by commas.
    unit, rounds, seeds, first_seed, train_examples, learning_rate, clip_norm, model, width, hidden, workers
        Of these runs; 0 examples are all, 0 workers all cores.
    parts
        What is measured: ``steps``, ``bytes``, ``epsilon``, ``accuracy``, separated by commas.
    """
    watcher, chosen = observer or Quiet(), parts.split(",")
    known: Mapping[str, Callable[[], Any]] = {
        "steps": partial(_steps, device, threads, steps, batch_size, watcher),
        "bytes": partial(_bytes, keep),
        "epsilon": _epsilon,
        "accuracy": partial(
            _accuracy,
            [
                *(f"data.root={data_root}", "data.name=mnist", "data.clients=10", "data.public=0.05"),
                *(f"data.train-limit={train_examples}", f"run.rounds={rounds}", f"run.device={device}"),
                *(f"run.workers={workers}", f"model.name={model}", f"model.hidden={hidden}"),
                *([f"model.width={width}"] if model == "cnn" else []),
                *(f"train.learning-rate={learning_rate}", "train.momentum=0.0"),
                *(f"privacy.unit={unit}", f"privacy.clip-norm={clip_norm}", "privacy.delta=1e-5"),
                *("privacy.accountant=rdp", "privacy.randomness=seeded"),
            ],
            [float(e) for e in str(epsilons).split(",")],
            _contenders(scores.split(","), [float(k) for k in str(keeps).split(",")]),
            range(first_seed, first_seed + seeds),
            watcher,
        ),
    }
    if unknown := [part for part in chosen if part not in known]:
        raise BadInput(f"benchmark privacy: unknown part '{unknown[0]}'; parts are {', '.join(known)}")
    return {"machine": machine(), **{part: known[part]() for part in chosen}}


def _steps(
    device_name: str, threads: int, steps: int, batch_size: int, watcher: Observer
) -> dict[str, dict[str, float]]:
    """Return milliseconds of a local step of the cnn, in turns, and how they relate."""
    if threads:
        torch.set_num_threads(threads)
    device = pick_device(device_name)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch_size, *INPUT_SHAPE, generator=generator).to(device)
    y = torch.randint(0, NUM_GROUPS, (batch_size,), generator=generator).to(device)
    contenders: dict[str, Step] = {
        "plain": _plain(_cnn(1.0, device), x, y),
        "hooks": _hooks(_cnn(1.0, device), x, y),
        "two-pass ghost": _two_passes(_cnn(1.0, device), x, y),
        "private": _private(_cnn(1.0, device), x, y),
        "plain, keep 0.5": _plain(_cnn(0.5, device), x, y),
        "private, keep 0.5": _private(_cnn(0.5, device), x, y),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    watcher.phase("steps", steps)
    for turn in range(steps + 3):
        for name, step in contenders.items():
            began = _now(device)
            step()
            if turn >= 3:  # the first ones warm up
                seconds[name].append(_now(device) - began)
        watcher.advance(f"step {turn}")
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
    model = build_model(ModelSettings(), INPUT_SHAPE, NUM_GROUPS, seed=0)
    settings = PrunedSettings(score="random")
    kept = Pruning(settings, model, 0).kept("0", keep, 1, {})
    return subnetwork(model, hidden_groups(model), kept).to(device)


def _plain(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Step:
    optimizer = torch.optim.SGD(model.parameters(), 0.1, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _hooks(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Step:
    """Opacus' default; its norms of the cnn's convolutions are wrong (see docs/privacy.md)."""
    module = GradSampleModule(model)
    plain = torch.optim.SGD(model.parameters(), 0.1, fused=True)
    noise = torch.Generator(device=x.device)
    optimizer = DPOptimizer(
        plain, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=len(x), generator=noise
    )

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _two_passes(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Step:
    """Opacus' ghost clipping; its norms of the cnn's convolutions are those of `_hooks`."""
    module = GradSampleModuleFastGradientClipping(model, max_grad_norm=1.0)
    plain = torch.optim.SGD(model.parameters(), 0.1, fused=True)
    noise = torch.Generator(device=x.device)
    optimizer = DPOptimizerFastGradientClipping(
        plain, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=len(x), generator=noise
    )
    criterion = DPLossFastGradientClipping(module, optimizer, nn.CrossEntropyLoss())

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        criterion(module(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _private(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Step:
    plain = torch.optim.SGD(model.parameters(), 0.1, fused=True)
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
        model = build_model(ModelSettings.model_validate({"name": name}), INPUT_SHAPE, NUM_GROUPS, seed=0)
        layout, groups = wire.Layout.of(model.state_dict()), hidden_groups(model)
        settings = PrunedSettings(score="random")
        kept = Pruning(settings, model, 0).kept("0", keep, 1, {})
        index, small = block_index(layout, groups, kept)
        flat = layout.flatten(model.state_dict())
        dense = len(dump(RecordDict({wire.ARRAYS: wire.FlatRecord(flat, layout)})))
        block = len(dump(RecordDict({wire.ARRAYS: wire.FlatRecord(flat[index], small)})))
        found[name] = {
            "keep": keep,
            "dense": dense,
            "block": block,
            "saved-percent": 100 * (1 - block / dense),
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


def _contenders(scores: Sequence[str], keeps: Sequence[float]) -> dict[str, list[str]]:
    """Return the keys of each contender by its name: the dense network, and every selection and share."""
    contenders: dict[str, list[str]] = {"dense": []}
    for score in scores:
        for keep in keeps:
            contenders[f"{score}, keep {keep:g}"] = [
                *("strategy.name=pruned-dp", f"strategy.score={score}", f"strategy.keep={keep}"),
            ]
    return contenders


def _accuracy(
    keys: Sequence[str],
    epsilons: Sequence[float],
    contenders: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    watcher: Observer,
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the test accuracy by ε and contender over the seeds, and how far it is from the dense network's.

    The difference is taken seed by seed, as both have the same data, initial model and noise to begin with.
    """
    watcher.phase("accuracy", len(epsilons) * len(contenders) * len(seeds))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for epsilon in epsilons:
        results: dict[str, list[float]] = {}
        for name, own in contenders.items():
            for seed in seeds:
                accuracy = _one([*keys, f"privacy.epsilon={epsilon}", *own, f"run.seed={seed}"])
                results.setdefault(name, []).append(accuracy)
                watcher.advance(f"ε {epsilon:g}, {name}, seed {seed}", {"accuracy": accuracy})
        found[f"{epsilon:g}"] = {
            name: _spread("", values)
            | _spread("over-dense-", [v - d for v, d in zip(values, results["dense"], strict=True)])
            for name, values in results.items()
        }
    return found


def _spread(prefix: str, values: Sequence[float]) -> dict[str, float]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {f"{prefix}mean": statistics.fmean(values), f"{prefix}std": deviation}


def _one(keys: list[str]) -> float:
    with tempfile.TemporaryDirectory() as home:
        last = RunConfig().with_overrides(keys).run.rounds
        config = RunConfig().with_overrides(
            [*keys, f"run.home={home}", f"run.evaluate-every={last}", "log.enabled=false"]
        )
        with Session.of(config).local_grid() as grid:
            folder = train(config, None, grid)
        return float(folder.read_summary()["final"]["test-accuracy"])

"""What trainings of one small model gain side by side, as the shadow models of an audit have it.

Each training has its own seed: its initial weights, its half of the digits, the order of its batches. All
are carried out one after another, and then as one batched computation (`strategies.client.side_by_side`), in
turns and in one process.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from app.config.settings import DataSettings, ModelSettings
from app.data import load_client_data
from app.models.built_in import build_model
from app.simulation.launch import num_cores
from app.workflows.observer import Observer
from benchmarks.options import BenchmarkOptions
from strategies.client.evaluation import evaluate
from strategies.client.settings import TrainSettings
from strategies.client.side_by_side import side_by_side
from strategies.client.training import Trainer, local_train
from strategies.core.examples import Examples
from strategies.core.secret_random import Randomness
from strategies.core.seeds import torch_generator
from strategies.layers.privacy.training import PrivateTrainer
from strategies.models.travelling import vector_of

_CLASSES = 10

Trainings = Sequence[Callable[[], nn.Module]]


class Options(BenchmarkOptions):
    """Options of the benchmark."""

    trainings: int = 16
    """How many."""
    epochs: int = 5
    """Of each training."""
    batch_size: int = 32
    repeats: int = 3
    """Turns; the fastest of each way counts, as other work on the machine only slows down."""
    threads: int = 1
    """Of torch, for both ways; 0 for all cores."""
    private: bool = False
    """Whether trainings are private at the example level, with σ = C = 1 and noise of a seed."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Measure both ways.

    Returns
    -------
    dict
        ``one-by-one`` and ``side-by-side`` with ``seconds``, ``processor-seconds`` and ``accuracies`` in
        percent; ``ratio`` and ``processor-ratio`` of these seconds; and the largest ``difference`` of two
        models over the length of what was trained.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads or num_cores())
    try:
        return _measured(options, observer)
    finally:
        torch.set_num_threads(before)


def _measured(options: Options, observer: Observer) -> dict[str, Any]:
    settings = DataSettings(name="digits", public="0", test_share=0)
    digits = load_client_data(settings, 0, {"partition-id": 0, "num-partitions": 1})
    works = [partial(trained, seed, digits, options) for seed in range(options.trainings)]
    ways: dict[str, Callable[[Trainings], Sequence[nn.Module]]] = {
        "one-by-one": lambda each: [work() for work in each],
        "side-by-side": side_by_side,
    }
    observer.phase("seeds", options.repeats * len(ways))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    models: dict[str, Sequence[nn.Module]] = {}
    for _ in range(options.repeats):
        for name, way in ways.items():
            began, busy = time.perf_counter(), time.process_time()
            models[name] = way(works)
            seconds[name].append(time.perf_counter() - began)
            processor[name].append(time.process_time() - busy)
            observer.advance(name)
    found = {
        name: {
            "seconds": min(seconds[name]),
            "processor-seconds": min(processor[name]),
            "accuracies": _accuracies(models[name], digits),
        }
        for name in ways
    }
    pairs = zip(models["one-by-one"], models["side-by-side"], strict=True)
    lengths = [difference(a, b, seed) for seed, (a, b) in enumerate(pairs)]
    ratios = {"ratio": _ratio(seconds), "processor-ratio": _ratio(processor)}
    return {**found, **ratios, "difference": max(lengths)}


def _ratio(times: Mapping[str, Sequence[float]]) -> float:
    return round(min(times["side-by-side"]) / min(times["one-by-one"]), 3)


def half_of(digits: Examples, seed: int) -> Tensor:
    """Return which digits a seed trains on, shape [n], bool: half of them."""
    order = torch.randperm(len(digits), generator=torch_generator(seed, "half"))
    chosen = torch.zeros(len(digits), dtype=torch.bool)
    chosen[order[: len(digits) // 2]] = True
    return chosen


def trained(seed: int, digits: Examples, options: Options) -> nn.Module:
    """Return the model of a seed."""
    model = _initial(seed)
    settings = TrainSettings(local_epochs=options.epochs, batch_size=options.batch_size)
    own, _ = digits.split(half_of(digits, seed))
    trainer: Trainer = PrivateTrainer(1.0, 1.0, Randomness(secret=False)) if options.private else local_train
    trainer(model, own, settings, torch_generator(seed, "batches"))
    return model


def difference(model: nn.Module, other: nn.Module, seed: int) -> float:
    """Return ‖model − other‖ / ‖model − its initial weights‖."""
    flat, away = vector_of(model), vector_of(model) - vector_of(_initial(seed))
    return float((flat - vector_of(other)).norm() / away.norm())


def _initial(seed: int) -> nn.Module:
    return build_model(ModelSettings(name="mlp"), (1, 8, 8), _CLASSES, seed)


def _accuracies(models: Sequence[nn.Module], digits: Examples) -> list[float]:
    """Return each model's accuracy on the half that it was not trained on, in percent."""
    others = [digits.split(half_of(digits, seed))[1] for seed in range(len(models))]
    return [round(evaluate(m, test).accuracy, 2) for m, test in zip(models, others, strict=True)]

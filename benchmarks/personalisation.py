"""What personalisation gains where every client has two classes of ten: Per-FedAvg and Ditto against FedAvg.

Every client is measured on test data as its own are. Three global models are compared, before anything, after
the one full-batch step that Per-FedAvg is made for, and after an epoch of local training (fine-tuning); and
models that clients keep: Ditto's, and one that only ever trained locally (Ditto with λ = 0).
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from app.config import RunConfig
from app.data import load_client_data, load_server_data
from app.models import build_model
from app.workflows.observer import Observer, Quiet
from app.workflows.training import train
from benchmarks.jobs import chosen, machine, spread
from strategies import wire
from strategies.evaluation import predict_logits
from strategies.examples import Examples
from strategies.local_training import local_train
from strategies.per_fedavg import descend
from strategies.personal import PERSONAL, PERSONAL_WORST, accuracy_at, class_shares, worst
from strategies.run_folder import RunFolder
from strategies.seeds import torch_generator

DATA: Mapping[str, Sequence[str]] = {"digits": ("data.name=digits",), "mnist": ("data.name=mnist",)}
_META = "strategy.name=per-fedavg"
GLOBAL: Mapping[str, Sequence[str]] = {
    "fedavg": ("strategy.name=fedavg",),
    "per-fedavg, first-order": (_META, "strategy.meta-gradient=first-order"),
    "per-fedavg, hessian-free": (_META, "strategy.meta-gradient=hessian-free"),
}
"""Strategies whose one model is measured, and personalised here."""
OWN: Mapping[str, Sequence[str]] = {
    "local alone": ("strategy.name=ditto", "strategy.ditto-lambda=0"),
    "ditto 0.1": ("strategy.name=ditto", "strategy.ditto-lambda=0.1"),
    "ditto 1": ("strategy.name=ditto", "strategy.ditto-lambda=1"),
}
"""Strategies whose clients keep models."""
_RUN = (
    "data.partition=shards",
    "data.shards-per-client=2",
    "data.public=0",
    "model.name=mlp",
    "train.batch-size=20",
    "train.learning-rate=0.05",
    "train.momentum=0.0",
    "run.workers=1",
    "log.enabled=false",
    "run.evaluate-every=1000000",
)
Change = Callable[[nn.Module, Examples], None]


def run(  # noqa: PLR0913  # a parameter per option
    observer: Observer | None = None,
    *,
    data: str = "",
    data_root: str = "",
    clients: int = 20,
    train_examples: int = 4000,
    rounds: int = 40,
    seeds: int = 3,
    inner_rate: float = 0.1,
) -> dict[str, Any]:
    """Return accuracies in percent, mean over clients and over the worst tenth, by data set.

    Parameters
    ----------
    observer
        Told of each run.
    data
        Names of the data sets, with commas between them; empty: all.
    data_root
        Where torchvision's MNIST lies (``data.root``).
    clients
        Of the federation.
    train_examples
        Training examples in all, of MNIST.
    rounds
        Of training.
    seeds
        Number of seeds, from 0.
    inner_rate
        ``strategy.inner-rate``, and the size of the one step.
    """
    wanted = chosen("data", data, DATA)
    settings = {"clients": clients, "train_examples": train_examples, "rounds": rounds, "seeds": seeds}
    observer = observer or Quiet()
    observer.phase("personalisation", len(wanted) * seeds)
    results: dict[str, Any] = {"machine": machine(), "settings": {**settings, "inner_rate": inner_rate}}
    for name in wanted:
        size = [f"data.train-limit={train_examples}", "data.test-limit=2000"] if name == "mnist" else []
        keys = [*_RUN, *DATA[name], *size, f"data.root={data_root}", f"data.clients={clients}"]
        tables = []
        for seed in range(seeds):
            tables.append(_one([*keys, f"run.rounds={rounds}", f"run.seed={seed}"], inner_rate))
            observer.advance(f"{name}, seed {seed}")
        results[name] = [
            {
                "model": row,
                **{figure: spread([t[row][figure] for t in tables]) for figure in ("mean", "worst")},
            }
            for row in tables[0]
        ]
    return results


def _one(keys: Sequence[str], inner_rate: float) -> dict[str, dict[str, float]]:
    """Return mean and worst by model, of one seed."""
    table: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as home:
        for name, own in OWN.items():
            folder = train(RunConfig().with_overrides([*keys, f"run.home={home}", *own]))
            final = folder.read_summary()["final"]
            table[name] = {"mean": final[PERSONAL], "worst": final[PERSONAL_WORST]}
        for name, strategy in GLOBAL.items():
            rate = [f"strategy.inner-rate={inner_rate}"] if name != "fedavg" else []
            config = RunConfig().with_overrides([*keys, f"run.home={home}", *strategy, *rate])
            folder = train(config)
            for change_name, change in _changes(config, inner_rate).items():
                table[f"{name}{change_name}"] = _measured(config, folder, change)
    return table


def _changes(config: RunConfig, rate: float) -> dict[str, Change]:
    def fine_tuned(model: nn.Module, examples: Examples) -> None:
        local_train(model, examples, config.train, torch_generator(config.run.seed, "fine-tuning"))

    return {
        "": lambda model, examples: None,
        " + one step": lambda model, examples: descend(model, examples, rate, 1),
        " + fine-tuning": fine_tuned,
    }


def _measured(config: RunConfig, folder: RunFolder, change: Change) -> dict[str, float]:
    """Return mean and worst accuracy of what every client makes of a run's model."""
    server = load_server_data(config.data, config.run.seed)
    if server.test is None:
        raise ValueError("the data set has no test data")
    model = build_model(config.model, server.input_shape, server.num_classes, config.run.seed)
    state = folder.read_model()
    layout = wire.Layout.of(state)
    accuracies = []
    for client in range(config.data.clients):
        node = {"partition-id": client, wire.NUM_PARTITIONS: config.data.clients}
        examples = load_client_data(config.data, config.run.seed, node)
        wire.load_flat(model, layout.flatten(state), layout)
        change(model, examples)
        shares = class_shares(examples.y, server.num_classes)
        accuracy = accuracy_at(predict_logits(model, server.test.x), server.test.y, shares)
        accuracies.append(0.0 if accuracy is None else accuracy)
    return {"mean": sum(accuracies) / len(accuracies), "worst": worst(accuracies)}

"""What personalisation gains where every client has two classes of ten: Per-FedAvg and Ditto against FedAvg.

Every client is measured on test data as its own are. Three global models are compared, before anything, after
the one full-batch step that Per-FedAvg is made for, and after an epoch of local training (fine-tuning); and
models that clients keep: Ditto's, and one that only ever trained locally (Ditto with λ = 0).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import RecordDict
from torch import nn

from app.config.run_config import RunConfig
from app.data import load_client_data, load_server_data
from app.models.built_in import build_model
from app.simulation.launch import partition_configs
from app.workflows.observer import Observer
from benchmarks.figures import pooled, spread
from benchmarks.options import DigitsOptions, RunOptions
from strategies.algorithm import Personalise
from strategies.client.training import ClientJob, local_train
from strategies.core import wire
from strategies.core.seeds import torch_generator
from strategies.personal import ditto
from strategies.personal.measuring import PERSONAL, measure, worst
from strategies.personal.per_fedavg import descend
from strategies.registry import lookup
from strategies.server.aggregation import ExactSum

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
)


class Options(RunOptions, DigitsOptions):
    """Options of the benchmark; the number of training examples is that of MNIST."""

    train_examples: int = 4000
    rounds: int = 20
    clients: int = 20
    """Of the federation."""
    inner_rate: float = 0.1
    """``strategy.inner-rate``, and the size of the one step."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return accuracies in percent, mean over clients and over the worst tenth, by data set."""
    data_sets = options.data_sets(options.train_examples)
    observer.phase("personalisation", len(data_sets) * options.seeds)
    settings = options.settings("clients", "train_examples", "rounds", "seeds", "inner_rate")
    results: dict[str, Any] = {"settings": settings}
    for name, data in data_sets.items():
        keys = [*_RUN, *data, f"data.clients={options.clients}", f"run.rounds={options.rounds}"]
        tables = []
        for seed in range(options.seeds):
            tables.append(_one([*keys, f"run.seed={seed}"], options.inner_rate))
            observer.advance(f"{name}, seed {seed}")
        results[name] = pooled("model", tables, spread)
    return results


def _one(keys: Sequence[str], inner_rate: float) -> dict[str, dict[str, float]]:
    """Return mean and worst by model, of one seed."""
    table: dict[str, dict[str, float]] = {}
    for name, own in {**OWN, **GLOBAL}.items():
        rate = [f"strategy.inner-rate={inner_rate}"] if _META in own else []
        federation = _Federation(RunConfig().with_overrides([*keys, *own, *rate]))
        federation.train()
        kept = {"": ditto.personalise} if name in OWN else _changes(federation.config, inner_rate)
        for change, personalise in kept.items():
            table[f"{name}{change}"] = federation.measured(personalise)
    return table


class _Federation:
    """The clients of a run config in one process, one after another, with the strategy's own client half."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        server = load_server_data(config.data, config.run.seed)
        if server.test is None:
            raise ValueError("the data set has no test data")
        self._test, self._num_groups = server.test, server.num_groups
        self._model = build_model(config.model, server.input_shape, server.num_groups, config.run.seed)
        self._layout = wire.Layout.of(self._model.state_dict())
        self._flat = self._layout.flatten(self._model.state_dict())
        nodes = partition_configs(config.data.clients)
        self._clients = [load_client_data(config.data, config.run.seed, node) for node in nodes]
        self._states = [RecordDict() for _ in nodes]

    def train(self) -> None:
        """Run all rounds, every client in each."""
        half = lookup(self.config.strategy.name).client
        for server_round in range(1, self.config.run.rounds + 1):
            total = ExactSum(self._layout.size)
            for client in range(len(self._clients)):
                result = half(self._job(client, server_round))
                new = self._layout.flatten(result.model.state_dict())
                total.add(new - self._flat, result.num_examples)
            self._flat = total.added_to(self._flat)

    def _job(self, client: int, server_round: int) -> ClientJob:
        wire.load_flat(self._model, self._flat, self._layout)
        return ClientJob(
            self._model,
            self._clients[client],
            self.config.train,
            self.config.strategy,
            str(client),
            server_round,
            torch_generator(self.config.run.seed, "client", str(client), "round", server_round),
            state=self._states[client],
        )

    def measured(self, personalise: Personalise) -> dict[str, float]:
        """Return mean and worst accuracy of what every client makes of the model."""
        accuracies = []
        for client in range(len(self._clients)):
            job = self._job(client, self.config.run.rounds + 1)
            told = measure(job, personalise, self._test, self._num_groups, own_test=False)
            accuracies.append(float(told.get(PERSONAL, 0.0)))
        return {"mean": sum(accuracies) / len(accuracies), "worst": worst(accuracies)}


def _changes(config: RunConfig, rate: float) -> dict[str, Personalise]:
    def stepped(job: ClientJob) -> nn.Module:
        descend(job.model, job.examples, rate, 1)
        return job.model

    def fine_tuned(job: ClientJob) -> nn.Module:
        local_train(job.model, job.examples, config.train, job.generator)
        return job.model

    return {"": lambda job: job.model, " + one step": stepped, " + fine-tuning": fine_tuned}

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
from app.workflows.observer import Observer, Quiet
from benchmarks.jobs import chosen, machine, spread
from strategies.algorithm import Personalise
from strategies.client.training import ClientJob, local_train
from strategies.core import wire
from strategies.core.seeds import torch_generator
from strategies.personal import ditto
from strategies.personal.measuring import PERSONAL, measure, worst
from strategies.personal.per_fedavg import descend
from strategies.registry import lookup
from strategies.server.aggregation import ExactSum

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
)


def run(  # noqa: PLR0913  # a parameter per option
    observer: Observer | None = None,
    *,
    data: str = "",
    data_root: str = "",
    clients: int = 20,
    train_examples: int = 4000,
    rounds: int = 20,
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
    for name, own in OWN.items():
        federation = _Federation(RunConfig().with_overrides([*keys, *own]))
        federation.train()
        table[name] = federation.measured(ditto.personalise)
    for name, strategy in GLOBAL.items():
        rate = [f"strategy.inner-rate={inner_rate}"] if name != "fedavg" else []
        federation = _Federation(RunConfig().with_overrides([*keys, *strategy, *rate]))
        federation.train()
        for change_name, change in _changes(federation.config, inner_rate).items():
            table[f"{name}{change_name}"] = federation.measured(change)
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
        count = config.data.clients
        nodes = [{"partition-id": i, wire.NUM_PARTITIONS: count} for i in range(count)]
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

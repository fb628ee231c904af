"""FedProx against FedAvg with stragglers that do a part of the work, on the data set of the paper.

Li et al., arXiv 1812.06127, section 5.2: synthetic(1,1), 30 devices, logistic regression, 10 devices a round,
20 local epochs in batches of 10, learning rate 0.01. In each round a share of the chosen are stragglers,
which do a number of epochs drawn from 1 to 19. FedAvg drops them; FedProx takes what they have done, with
μ = 0 or 1. The figure is the training loss over all devices.

Clients and averaging are the project's own, called directly: thousands of steps of 610 parameters would spend
their time in messages. Chosen devices, stragglers, batches and initial model are the same for all contenders.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.config.settings import DataSettings
from app.data import load_client_data
from app.workflows.observer import Observer, Quiet
from benchmarks.jobs import machine
from strategies.client.settings import TrainSettings
from strategies.client.training import ClientJob
from strategies.core import wire
from strategies.core.examples import TensorExamples
from strategies.core.seeds import numpy_generator, torch_generator
from strategies.fedprox.fedprox import train_client
from strategies.server.aggregation import ExactSum
from strategies.settings import StrategySettings

DEVICES, CHOSEN, EPOCHS = 30, 10, 20
CONTENDERS: Mapping[str, tuple[float, bool]] = {
    "fedavg": (0.0, False),
    "fedprox, mu 0": (0.0, True),
    "fedprox, mu 1": (1.0, True),
}
"""μ, and whether the work of stragglers counts."""


@dataclass(frozen=True)
class Task:
    """One run.

    Parameters
    ----------
    mu
        Of FedProx.
    keeps_partial
        Whether stragglers count.
    stragglers
        Share of the chosen devices that are stragglers.
    rounds
        How many.
    epochs
        Of a device that is none.
    seed
        Decides who is chosen, who is a straggler, and the batches.
    """

    mu: float
    keeps_partial: bool
    stragglers: float
    rounds: int
    epochs: int
    seed: int


def run(
    observer: Observer | None = None,
    *,
    seeds: int = 3,
    rounds: int = 40,
    epochs: int = EPOCHS,
    stragglers: str = "0,0.5,0.9",
    devices_seed: int = 0,
) -> dict[str, Any]:
    """Return the loss after each round by share of stragglers and contender: mean over seeds, and its spread.

    Parameters
    ----------
    observer
        Told of each run.
    seeds
        Number of seeds, from 0.
    rounds
        How many; the paper has 200.
    epochs
        Local epochs of a device that is no straggler.
    stragglers
        Shares, separated by commas.
    devices_seed
        Of the data set.
    """
    data = DataSettings(
        name=f"synthetic:1,1,{DEVICES},{devices_seed}", partition="devices", clients=DEVICES, public="0"
    )
    nodes = [{"partition-id": i, "num-partitions": DEVICES} for i in range(DEVICES)]
    devices = [load_client_data(data, 0, node) for node in nodes]
    shares = [float(share) for share in str(stragglers).split(",")]  # One is a number
    watcher = observer or Quiet()
    watcher.phase("stragglers", len(shares) * len(CONTENDERS) * seeds)
    found: dict[str, Any] = {}
    for share in shares:
        for name, (mu, keeps_partial) in CONTENDERS.items():
            tasks = [Task(mu, keeps_partial, share, rounds, epochs, seed) for seed in range(seeds)]
            curves = []
            for task in tasks:
                curves.append(losses(task, devices))
                watcher.advance(f"{share:.0%} stragglers, {name}, seed {task.seed}", {"loss": curves[-1][-1]})
            found.setdefault(f"{share:g}", {})[name] = _summary(curves)
    sizes = [len(device) for device in devices]
    return {"machine": machine(), "rounds": rounds, "seeds": seeds, "sizes": sizes, "losses": found}


def losses(task: Task, devices: Sequence[TensorExamples]) -> list[float]:
    """Return the training loss over all devices before the first round and after each round."""
    model = nn.Linear(devices[0].x.shape[1], 10)
    layout = wire.Layout.of(model.state_dict())
    flat = torch.zeros(layout.size)
    train = TrainSettings(learning_rate=0.01, momentum=0.0, batch_size=10, local_epochs=task.epochs)
    found = [_loss(model, flat, layout, devices)]
    for server_round in range(1, task.rounds + 1):
        total = ExactSum(layout.size)
        for device, work in _chosen(task, server_round).items():
            if work < 1 and not task.keeps_partial:
                continue
            wire.load_flat(model, flat, layout)
            settings = StrategySettings(name="fedprox", mu=task.mu, work=f"{device}={work}")
            generator = torch_generator(task.seed, "client", device, "round", server_round)
            job = ClientJob(model, devices[device], train, settings, str(device), server_round, generator)
            result = train_client(job)
            total.add(layout.flatten(result.model.state_dict()) - flat, result.num_examples)
        flat = total.added_to(flat) if total.count else flat
        found.append(_loss(model, flat, layout, devices))
    return found


def _chosen(task: Task, server_round: int) -> dict[int, float]:
    """Return the devices of a round with the share of the epochs that each does; below 1: a straggler."""
    generator = numpy_generator(task.seed, "stragglers", server_round)
    chosen = generator.choice(DEVICES, size=CHOSEN, replace=False)
    late = set(generator.permutation(chosen)[: round(task.stragglers * CHOSEN)].tolist())
    epochs = {int(i): int(generator.integers(1, task.epochs)) for i in chosen}
    return {i: epochs[i] / task.epochs if i in late else 1.0 for i in map(int, chosen)}


def _loss(model: nn.Module, flat: Tensor, layout: wire.Layout, devices: Sequence[TensorExamples]) -> float:
    wire.load_flat(model, flat, layout)
    x, y = torch.cat([d.x for d in devices]), torch.cat([d.y for d in devices])
    with torch.no_grad():
        return float(functional.cross_entropy(model(x), y))


def _summary(curves: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return the mean curve, the last loss and its spread over seeds, and the sum of a curve's rises."""
    last = [curve[-1] for curve in curves]
    rises = [sum(max(0.0, b - a) for a, b in pairwise(curve)) for curve in curves]
    return {
        "curve": [statistics.fmean(values) for values in zip(*curves, strict=True)],
        "last": {"mean": statistics.fmean(last), "std": statistics.stdev(last) if len(last) > 1 else 0.0},
        "rises": statistics.fmean(rises),
    }

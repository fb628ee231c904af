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

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from app.config.settings import DataSettings
from app.data import load_client_data
from app.simulation.launch import partition_configs
from app.workflows.observer import Observer
from benchmarks.figures import mean_std
from benchmarks.options import SeedsOptions, numbers
from strategies.client.settings import TrainSettings
from strategies.client.training import ClientJob
from strategies.core import wire
from strategies.core.examples import TensorExamples, in_memory
from strategies.core.seeds import numpy_generator, torch_generator
from strategies.fedprox.fedprox import train_client
from strategies.server.aggregation import ExactSum
from strategies.settings import StrategySettings

DEVICES, CHOSEN, EPOCHS = 30, 10, 20


@dataclass(frozen=True)
class Contender:
    """FedProx with some μ, or FedAvg."""

    mu: float
    keeps_partial: bool
    """Whether the work of stragglers counts."""


CONTENDERS: Mapping[str, Contender] = {
    "fedavg": Contender(0.0, keeps_partial=False),
    "fedprox, mu 0": Contender(0.0, keeps_partial=True),
    "fedprox, mu 1": Contender(1.0, keeps_partial=True),
}


class Options(SeedsOptions):
    """Options of the benchmark."""

    rounds: int = 40
    """How many; the paper has 200."""
    epochs: int = EPOCHS
    """Local epochs of a device that is no straggler."""
    stragglers: str = "0,0.5,0.9"
    """Shares, separated by commas."""
    devices_seed: int = 0
    """Of the data set."""

    def devices(self) -> list[TensorExamples]:
        """Return each device's examples."""
        name = f"synthetic:1,1,{DEVICES},{self.devices_seed}"
        data = DataSettings(name=name, partition="devices", clients=DEVICES, public="0")
        return [in_memory(load_client_data(data, 0, node)) for node in partition_configs(DEVICES)]


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return the loss after each round over the seeds, by share of stragglers and contender."""
    devices = options.devices()
    shares = numbers("stragglers", options.stragglers)
    observer.phase("stragglers", len(shares) * len(CONTENDERS) * options.seeds)
    found: dict[str, Any] = {}
    for share in shares:
        for name, contender in CONTENDERS.items():
            curves = []
            for seed in range(options.seeds):
                curves.append(losses(options, contender, share, seed, devices))
                observer.advance(f"{share:.0%} stragglers, {name}, seed {seed}", {"loss": curves[-1][-1]})
            found.setdefault(f"{share:g}", {})[name] = _summary(curves)
    sizes = [len(device) for device in devices]
    return {**options.settings("rounds", "seeds"), "sizes": sizes, "losses": found}


def losses(
    options: Options, contender: Contender, stragglers: float, seed: int, devices: Sequence[TensorExamples]
) -> list[float]:
    """Return the training loss over all devices before the first round and after each round.

    The seed decides who is chosen, who is among the share of stragglers, and the batches.
    """
    model = nn.Linear(devices[0].x.shape[1], 10)
    layout = wire.Layout.of(model.state_dict())
    flat = torch.zeros(layout.size)
    train = TrainSettings(learning_rate=0.01, momentum=0.0, batch_size=10, local_epochs=options.epochs)
    found = [_loss(model, flat, layout, devices)]
    for server_round in range(1, options.rounds + 1):
        total = ExactSum(layout.size)
        chosen = _chosen(options.epochs, stragglers, numpy_generator(seed, "stragglers", server_round))
        for device, work in chosen.items():
            if work < 1 and not contender.keeps_partial:
                continue
            wire.load_flat(model, flat, layout)
            settings = StrategySettings(name="fedprox", mu=contender.mu, work=f"{device}={work}")
            generator = torch_generator(seed, "client", device, "round", server_round)
            job = ClientJob(model, devices[device], train, settings, str(device), server_round, generator)
            result = train_client(job)
            total.add(layout.flatten(result.model.state_dict()) - flat, result.num_examples)
        flat = total.added_to(flat) if total.count else flat
        found.append(_loss(model, flat, layout, devices))
    return found


def _chosen(epochs: int, stragglers: float, generator: np.random.Generator) -> dict[int, float]:
    """Return the devices of a round with the share of the epochs that each does; below 1: a straggler."""
    chosen = generator.choice(DEVICES, size=CHOSEN, replace=False)
    late = set(generator.permutation(chosen)[: round(stragglers * CHOSEN)].tolist())
    done = {int(i): int(generator.integers(1, epochs)) for i in chosen}
    return {i: done[i] / epochs if i in late else 1.0 for i in map(int, chosen)}


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
        "last": mean_std(last),
        "rises": statistics.fmean(rises),
    }

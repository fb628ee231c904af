"""Networks with one difficulty each, in place of ``mlp``, chosen by ``model.hidden``; in workers, too."""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.client import node
from app.config.run_config import RunConfig
from app.config.settings import ModelSettings
from app.models import built_in
from app.workflows import local_clients
from strategies.core.settings import Scalar

FROZEN, DROPOUT, NORMED, COUNTING, ODD, TIED = range(1, 7)
SMALL = (
    "run.workers=1",
    "data.clients=3",
    "data.test-limit=60",
    "model.name=mlp",
    "train.learning-rate=0.05",
)
SECURE = ("privacy.secure-aggregation=true", "log.enabled=false")


def config(home: Path, name: str, network: int, *overrides: str) -> RunConfig:
    """Return the config of a small run of a network, in a folder of runs."""
    key = f"run.certificate-key={home / 'certificate.pem'}"
    placed = (f"run.home={home}", f"run.name={name}", f"model.hidden={network}", key)
    return RunConfig().with_overrides([*SMALL, *placed, *overrides])


def use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the networks built, in this process and in the workers of simulations."""
    monkeypatch.setitem(built_in._BUILDERS, "mlp", build)
    monkeypatch.setattr(local_clients, "PREPARE", f"{__name__}:prepare")


def prepare(run_config: Mapping[str, Scalar]) -> None:
    """As `app.client.node.prepare`, in the process that workers are forked from."""
    built_in._BUILDERS["mlp"] = build
    node.prepare(run_config)


def build(settings: ModelSettings, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Return a network of the inputs' size."""
    return NETWORKS[settings.hidden](math.prod(input_shape), num_outputs)


def frozen(size: int, num_outputs: int) -> nn.Module:
    """Return a body that is not trained, and a head."""
    body = nn.Sequential(nn.Linear(size, 8), nn.ReLU()).requires_grad_(False)
    return nn.Sequential(nn.Flatten(), body, nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, num_outputs))


def odd(size: int, num_outputs: int) -> nn.Module:
    """Return the same, with a body that is another in every process."""
    model = frozen(size, num_outputs)
    with torch.no_grad():
        model.get_parameter("1.0.bias").fill_(os.getpid() % 1000)
    return model


def dropout(size: int, num_outputs: int) -> nn.Module:
    """Return a network that drops half of its units."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(size, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, num_outputs)
    )


def normed(size: int, num_outputs: int) -> nn.Module:
    """Return a network with a layer that normalises over the batch."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(size, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, num_outputs)
    )


class Counting(nn.Module):
    """Trains worse the more batches it has seen, so that a count which leaks changes the result."""

    def __init__(self, size: int, num_outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, num_outputs)
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits that shrink with the number of batches seen in training."""
        if self.training:
            self.get_buffer("seen").add_(1)
        return torch.as_tensor(self.layer(x.flatten(1))) / (1 + self.get_buffer("seen"))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self, size: int, num_outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(size, size), nn.Linear(size, size)
        self.second.weight = self.first.weight
        self.head = nn.Linear(size, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return torch.as_tensor(self.head(torch.relu(self.second(torch.relu(self.first(x.flatten(1)))))))


NETWORKS: Mapping[int, Callable[[int, int], nn.Module]] = {
    FROZEN: frozen,
    DROPOUT: dropout,
    NORMED: normed,
    COUNTING: Counting,
    ODD: odd,
    TIED: Tied,
}

"""A FedMD federation without processes: a real server half, real client halves, tiny models, made-up data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from flwr.app import ConfigRecord, Message, RecordDict
from torch import nn

from strategies.core import wire
from strategies.core.examples import Examples, TensorExamples
from strategies.core.secret_random import Randomness
from strategies.core.seeds import seeded_layers, torch_generator
from strategies.fedmd.client import DIGEST, QUERY, FedMDWork, answer_digest, answer_query
from strategies.fedmd.server import FedMD, ServerSide
from strategies.plan import TrainingPlan
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.strategies.fakes import Answer, FakeGrid

CLASSES = 3
SMALL: dict[str, Any] = {
    "name": "fedmd",
    "alignment": 30,
    "public_epochs": 2,
    "private_epochs": 2,
    "revisit_epochs": 1,
    "step_size": 0.01,
}


def blobs(count: int, seed: int, classes: Sequence[int] = range(CLASSES)) -> Examples:
    """Return points around one centre per class, shape [count, 4]."""
    generator = torch_generator(seed, "blobs")
    y = torch.tensor(list(classes))[torch.randint(len(classes), (count,), generator=generator)]
    centres = 2 * torch.eye(CLASSES, 4)
    return TensorExamples(centres[y] + 0.5 * torch.randn(count, 4, generator=generator), y)


@dataclass(frozen=True)
class PublicExamples:
    """Public data as the client half sees them."""

    examples: Examples

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, indices: torch.Tensor) -> Examples:
        return self.examples.subset(indices)


PUBLIC = PublicExamples(blobs(60, 100))
TEST = blobs(90, 200)


def network(hidden: int, seed: int = 0, dropout: float = 0.0) -> nn.Module:
    """Return a network with one hidden layer and seeded weights."""
    with seeded_layers(torch_generator(seed, "network", hidden)):
        return nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, CLASSES))


@dataclass
class Client:
    """A client with its own model, data and state.

    Parameters
    ----------
    client_id
        Its name.
    hidden
        Size of its network.
    examples
        Its own data.
    settings
        The section ``strategy``.
    test
        What it is measured on.
    sent
        Every reply that it gave.
    """

    client_id: str
    hidden: int
    examples: Examples
    settings: StrategySettings
    test: Examples | None = field(default_factory=lambda: TEST)
    dropout: float = 0.2
    randomness: Randomness = field(default_factory=Randomness)
    state: RecordDict = field(default_factory=RecordDict)
    sent: list[Message] = field(default_factory=list)

    def work(self, config: dict[str, Any], content: RecordDict | None = None) -> FedMDWork:
        """Return what the client half is given for a message."""
        return FedMDWork(
            build_model=partial(network, self.hidden, dropout=self.dropout),
            examples=self.examples,
            public=PUBLIC,
            test=lambda: self.test,
            pooled=lambda: blobs(60, 300),
            settings=self.settings,
            seed=0,
            client_id=self.client_id,
            state=self.state,
            config=config,
            arrays=(content or RecordDict()).array_records,
            randomness=self.randomness,
        )

    def model(self, lineage: str = "") -> nn.Module:
        """Return the model that the client keeps."""
        model = network(self.hidden, dropout=self.dropout)
        assert self.work({wire.LINEAGE: lineage}).client_state.read_model(model)
        return model

    @property
    def flat(self) -> torch.Tensor:
        """The weights that the client keeps."""
        state = self.model().state_dict()
        return wire.Layout.of(state).flatten(state)

    def __call__(self, message: Message) -> Message:
        kind = message.metadata.message_type
        if kind == wire.DESCRIBE:
            metrics = {wire.NUM_EXAMPLES: len(self.examples), wire.LABEL_COUNTS: [1] * CLASSES}
            return wire.reply_to(message, self.client_id, metrics)
        config = dict(message.content.config_records.get(wire.CONFIG, ConfigRecord()))
        answer = {QUERY: answer_query, DIGEST: answer_digest}[kind]
        reply = answer(self.work(config, message.content))
        self.sent.append(wire.reply_to(message, self.client_id, reply.metrics, reply.arrays))
        return self.sent[-1]


def clients_of(settings: StrategySettings, count: int = 3) -> list[Client]:
    """Return clients with networks of different sizes; the k-th has seen every class but the k-th."""
    return [
        Client(str(i), 5 + i, blobs(12 + i, i, [c for c in range(CLASSES) if c != i]), settings)
        for i in range(count)
    ]


def server_half(plan: TrainingPlan) -> FedMD:
    """Return the server half of a plan."""
    side = ServerSide(PUBLIC.examples.y, CLASSES, plan.seed, plan.rounds, plan.evaluate_every)
    return FedMD(plan.strategy, side)


def plan_of(settings: StrategySettings, rounds: int = 2, **more: Any) -> TrainingPlan:
    """Return a plan of so many rounds."""
    return TrainingPlan(settings, SelectionSettings(), rounds, 0, build=server_half, **more)


def connected(clients: Sequence[Answer], shuffle: int | None = None) -> Cohort:
    """Return a cohort of clients, the first at node 1."""
    grid = FakeGrid(dict(enumerate(clients, start=1)), shuffle)
    cohort = Cohort(grid, timeout=0.2, poll_seconds=0.001)
    cohort.connect(len(clients))
    return cohort


def away(client: Client, rounds: Callable[[int], bool]) -> Answer:
    """Return a client that answers nothing in some rounds."""

    def answer(message: Message) -> Message | None:
        config = message.content.config_records.get(wire.CONFIG, ConfigRecord())
        server_round = int(str(config.get(wire.SERVER_ROUND, 0)))
        return None if server_round and rounds(server_round) else client(message)

    return answer

"""Clients whose loss is a parabola of one number, on which an algorithm can be worked out by hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from flwr.app import Message, RecordDict
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.client.training import ClientJob, TrainStats
from strategies.core import wire
from strategies.core.examples import TensorExamples
from strategies.core.seeds import torch_generator
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.registry import lookup
from strategies.rounds import train
from strategies.server import memory
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.strategies.fakes import FakeGrid, flat_record

RATE, STEPS = 0.125, 4


class Point(nn.Module):
    """A model that is one number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([value]))


@dataclass
class Hill:
    """A client with the loss a/2 (w − m)², which it descends in `STEPS` full steps of `RATE`."""

    client_id: str
    a: float
    m: float
    settings: StrategySettings
    n: int = 1
    steps: int = STEPS
    state: RecordDict = field(default_factory=RecordDict)
    spoil: Callable[[RecordDict], None] | None = None
    schedule: Mapping[str, Any] = field(default_factory=dict)

    def trainer(
        self, model: nn.Module, *_: object, rates: Sequence[float], adjust: Any = None, **__: object
    ) -> TrainStats:
        """Take steps of plain gradient descent."""
        (w,) = model.parameters()
        for rate in rates:
            gradients = [self.a * (w.detach() - self.m)]
            if adjust is not None:
                gradients = adjust([w], gradients)
            w.data.sub_(rate * gradients[0])
        return TrainStats(self.steps, 0.0)

    @property
    def train(self) -> TrainSettings:
        """The section ``train``, with what is told of a schedule."""
        plain = TrainSettings(learning_rate=RATE, local_steps=self.steps, momentum=0.0)
        return plain.model_copy(update=dict(self.schedule))

    def __call__(self, message: Message) -> Message:
        """Answer."""
        told = {wire.NUM_EXAMPLES: self.n, wire.LABEL_COUNTS: [self.n]}
        if message.metadata.message_type == wire.DESCRIBE:
            return wire.reply_to(message, self.client_id, told)
        received = message.content
        model = Point(float(wire.state_of(received.array_records[wire.ARRAYS])["w"]))
        job = ClientJob(
            model,
            TensorExamples(torch.zeros(self.n, 1), torch.zeros(self.n, dtype=torch.long)),
            self.train,
            self.settings,
            self.client_id,
            int(str(received.config_records[wire.CONFIG][wire.SERVER_ROUND])),
            torch_generator(0),
            trainer=self.trainer,  # type: ignore[arg-type]
            state=self.state,
            received=received,
            rounds=int(str(received.config_records[wire.CONFIG][wire.ROUNDS])),
        )
        result = lookup(self.settings.name).client(job)
        metrics = {wire.NUM_EXAMPLES: self.n, **result.metrics}
        reply = wire.reply_to(message, self.client_id, metrics, wire.record_of(result.model.state_dict()))
        for name, flat in result.records.items():
            reply.content[name] = wire.record_of({"w": flat})
        if self.spoil is not None:
            self.spoil(reply.content)
        return reply


@dataclass
class Ended:
    """What a training came to: the model, its rounds, what a checkpoint holds of the strategy, the cohort."""

    model: float
    rounds: list[RoundResult]
    memory: dict[str, Tensor]
    cohort: Cohort


def run(*clients: Hill, rounds: int, start: Start | None = None) -> Ended:
    """Train the clients' strategy from zero, or from a start."""
    cohort = Cohort(FakeGrid(dict(enumerate(clients, 1))), 2.0, 0.001)
    cohort.connect(len(clients))
    kept: dict[str, Tensor] = {}
    results: list[RoundResult] = []

    def on_round(result: RoundResult, strategy: Any) -> None:
        results.append(result)
        kept.clear()
        kept.update({key: tensor.clone() for key, tensor in memory.capture(strategy).items()})

    plan = TrainingPlan(clients[0].settings, SelectionSettings(), rounds, 0)
    arrays = train(plan, cohort, start or Start(flat_record([0.0])), on_round=on_round)
    return Ended(float(wire.state_of(arrays)["w"]), results, kept, cohort)

"""Clients over functions that compress as the real ones do, and a loop over them."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from flwr.app import Message, RecordDict
from torch import Tensor, nn

from strategies.core import wire
from strategies.core.seeds import derive_seed, torch_generator
from strategies.layers.compression.client import ClientLink, LostVersion
from strategies.layers.compression.settings import CompressionSettings
from strategies.models.mask import unpack
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import Layer, train
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.strategies.fakes import FakeGrid

SIZE = 60
Step = Callable[[Tensor], Tensor]
"""From the parameters to the update."""


def model() -> nn.Module:
    """Return a linear model of 60 parameters."""
    linear = nn.Linear(11, 5)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch_generator(0, "model")))
    return linear


LAYOUT = wire.Layout.of(model().state_dict())


@dataclass
class Client:
    """A client that adds what a function of the parameters says, and keeps a state."""

    client_id: str
    num_examples: int
    step: Step
    settings: CompressionSettings
    accuracy: float = 0.0
    state: RecordDict = field(default_factory=RecordDict)
    starts: list[Tensor] = field(default_factory=list)

    def __call__(self, message: Message) -> Message:
        """Answer as the ClientApp does."""
        if message.metadata.message_type == wire.DESCRIBE:
            return wire.reply_to(message, self.client_id, {wire.NUM_EXAMPLES: self.num_examples})
        metrics = {wire.NUM_EXAMPLES: self.num_examples}
        if not ClientLink.wanted(message.content):
            start = wire.flat_of(message.content.array_records[wire.ARRAYS], LAYOUT)
            new = wire.FlatRecord(start + self.step(start), LAYOUT)
            return wire.reply_to(message, self.client_id, metrics, new)
        packed = message.content.config_records[wire.CONFIG].get(wire.MASK)
        mask = unpack(packed, SIZE) if isinstance(packed, bytes) else None
        link = ClientLink(self.settings, message.content, self.state, LAYOUT, mask)
        try:
            start = wire.flat_of(link.receive(), LAYOUT)
        except LostVersion as reason:
            return wire.reply_to(message, self.client_id, {}, config={wire.REFUSED: str(reason)})
        self.starts.append(start)
        trained = model()
        wire.load_flat(trained, start + self.step(start), LAYOUT)
        server_round = int(str(message.content.config_records[wire.CONFIG][wire.SERVER_ROUND]))
        seed = derive_seed(0, "up", self.client_id, server_round)
        return link.reply(message, self.client_id, metrics, trained, seed, lambda: self.accuracy)


def run(
    clients: list[Client],
    settings: CompressionSettings,
    rounds: int = 1,
    *,
    strategy: str | StrategySettings = "fedavg",
    selection: SelectionSettings = SelectionSettings(),  # noqa: B008 (frozen)
    layer: Layer | None = None,
    start: Start | None = None,
    on_round: Callable[[RoundResult, object], None] | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, list[RoundResult]]:
    """Train and return the model and the rounds."""
    cohort = Cohort(FakeGrid(dict(enumerate(clients, start=1))), 60.0, 0.001)
    cohort.connect(len(clients))
    named = StrategySettings(name=strategy) if isinstance(strategy, str) else strategy
    plan = TrainingPlan(named, selection, rounds, 0, compression=settings)
    results: list[RoundResult] = []

    def note(result: RoundResult, loop: object) -> None:
        results.append(result)
        if on_round is not None:
            on_round(result, loop)

    begin = start or Start(wire.record_of(model().state_dict()))
    arrays = train(plan, cohort.masked(mask), begin, layer=layer, on_round=note)
    return wire.flat_of(arrays, LAYOUT), results

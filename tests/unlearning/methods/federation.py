"""A federation in this process, for the tests of methods that ask clients.

Messages, cohort, guard, rounds and log are the real ones. Only the transport is not: a client works on a
message at the moment it is pushed.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, Error, Message, RecordDict
from torch import Tensor, nn

from app.simulation.grid import take_identity
from strategies.client.settings import TrainSettings
from strategies.client.training import ClientJob
from strategies.core import wire
from strategies.core.examples import Examples, TensorExamples, concatenated
from strategies.core.seeds import torch_generator
from strategies.log.strategy import LoggedStrategy
from strategies.log.update_log import UpdateLog
from strategies.models.ensemble import ensemble_of, whole_layout
from strategies.models.mask import hold, masks_in, masks_of, unpack
from strategies.plan import Start, TrainingPlan
from strategies.registry import lookup
from strategies.rounds import train
from strategies.server.cohort import Cohort
from strategies.server.grids import BaseGrid
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from strategies.task import CLASSIFICATION
from unlearning.forget_spec import ForgetSpec
from unlearning.methods import METHODS, ForgetWork
from unlearning.run import TrainedRun

ACTIONS = {kind: action for method in METHODS.values() for kind, action in method.actions.items()}


def mlp(*widths: int) -> nn.Module:
    """Return a small network in float64, always with the same weights."""
    layers = [nn.Linear(widths[0], widths[1], dtype=torch.float64), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(widths[1], widths[2], dtype=torch.float64))
    generator = torch_generator(0, "test weights")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def blobs(num_examples: int, seed: int, classes: int = 3) -> Examples:
    """Draw points in four dimensions around one centre per class, in float64."""
    generator = torch_generator(seed, "test data")
    y = torch.randint(classes, (num_examples,), generator=generator)
    centers = 2.0 * torch.eye(4, dtype=torch.float64)
    return TensorExamples(
        centers[y] + torch.randn((num_examples, 4), generator=generator, dtype=torch.float64), y
    )


@dataclass
class Federation(BaseGrid):
    """Clients by id, and the grid to them.

    Parameters
    ----------
    data
        Client-id -> its examples.
    build_model
        Makes the model, always with the same weights.
    settings, strategy
        Of local training.
    backwards
        Whether replies arrive in the opposite order.
    offline
        Clients without a node.
    failing
        Client-id -> message types on which it answers with an error.
    change
        Changes an answer on its way: (client-id, message type, content) -> content.
    asked
        (message type, client-id) of every message so far.
    """

    data: Mapping[str, Examples]
    build_model: Callable[[], nn.Module] = lambda: mlp(4, 8, 3)
    settings: TrainSettings = field(
        default_factory=lambda: TrainSettings(local_epochs=1, batch_size=8, momentum=0.0)
    )
    strategy: StrategySettings = field(default_factory=StrategySettings)
    seed: int = 0
    backwards: bool = False
    offline: frozenset[str] = frozenset()
    failing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    change: Callable[[str, str, RecordDict], RecordDict] = lambda client_id, kind, content: content
    asked: list[tuple[str, str]] = field(default_factory=list)
    _replies: dict[str, Message] = field(default_factory=dict)
    _shared: dict[object, nn.Module] = field(default_factory=dict)

    @property
    def layout(self) -> wire.Layout:
        """Names and shapes of the model's entries."""
        return wire.Layout.of(self.build_model().state_dict())

    def cohort(self) -> Cohort:
        """Return the connected clients."""
        take_identity()
        cohort = Cohort(self)
        cohort.connect()
        return cohort

    def trained(
        self,
        path: Path,
        rounds: int = 4,
        retention: str = "full",
        drawn: SelectionSettings | None = None,
        groups: int = 1,
    ) -> TrainedRun:
        """Train for some rounds and return the run, with its log at `path`; perhaps in groups apart."""
        plan = TrainingPlan(self.strategy, drawn or SelectionSettings(), rounds, self.seed, isolation=groups)
        layout = whole_layout(self.layout, groups)
        initial = self.layout.flatten(self.build_model().state_dict()).repeat(groups)
        with UpdateLog.create(path, self.layout, retention) as log:
            start = Start(wire.FlatRecord(initial, layout))
            final = train(plan, self.cohort(), start, layer=lambda inner: LoggedStrategy(inner, log))
        self.asked.clear()
        return TrainedRun(
            plan=plan,
            train=self.settings,
            build_model=lambda: ensemble_of(lambda _: self.build_model(), groups, CLASSIFICATION),
            layout=layout,
            initial=initial,
            final=wire.flat_of(final, layout),
            log=UpdateLog.open(path),
            num_groups=3,
            clients=tuple(sorted(self.data, key=wire.client_sort_key)),
        )

    def but(self, **changes: Any) -> "Federation":
        """Return the same federation with something changed."""
        return replace(self, **{"asked": [], "_replies": {}, "_shared": {}, **changes})

    # Grid

    def get_node_ids(self) -> list[int]:
        return [node for node, i in self._names().items() if i not in self.offline]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            message_id = f"{len(self.asked)}"
            message.metadata.__dict__["_message_id"] = message_id
            client_id = self._names()[message.metadata.dst_node_id]
            self.asked.append((message.metadata.message_type, client_id))
            self._replies[message_id] = self._reply(client_id, message)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        wanted = sorted(message_ids, key=int, reverse=self.backwards)
        return [self._replies.pop(i) for i in wanted if i in self._replies]

    # Clients

    def _names(self) -> dict[int, str]:
        return dict(enumerate(sorted(self.data, key=wire.client_sort_key), start=1))

    def _reply(self, client_id: str, message: Message) -> Message:
        kind = message.metadata.message_type
        if kind in self.failing.get(client_id, ()):
            return Message(Error(0, "out of memory"), reply_to=message)
        answer = self._describe if kind == wire.DESCRIBE else self._train if kind == wire.TRAIN else self._act
        metrics, arrays = answer(client_id, message)
        reply = wire.reply_to(message, client_id, metrics, arrays)
        reply.content = self.change(client_id, kind, reply.content)
        return reply

    def _describe(self, client_id: str, _: Message) -> tuple[Mapping[str, Any], None]:
        y = self.data[client_id].y
        counts = torch.bincount(y, minlength=3).tolist()
        return {wire.NUM_EXAMPLES: len(y), wire.LABEL_COUNTS: counts}, None

    def _train(self, client_id: str, message: Message) -> tuple[Mapping[str, Any], ArrayRecord]:
        work = self._task(client_id, message)
        job = ClientJob(
            work.build_model(work.arrays[wire.ARRAYS]),
            work.retain,
            self.settings,
            self.strategy,
            client_id,
            work.server_round,
            work.generator,
            rounds=int(str(work.config[wire.ROUNDS])),
        )
        result = lookup(self.strategy.name).client(job)
        metrics = {**result.metrics, wire.NUM_EXAMPLES: result.num_examples}
        return metrics, wire.record_of(result.model.state_dict())

    def _act(self, client_id: str, message: Message) -> tuple[Mapping[str, Any], ArrayRecord | None]:
        answer = ACTIONS[message.metadata.message_type](self._task(client_id, message))
        return answer.metrics, answer.arrays

    def _task(self, client_id: str, message: Message) -> ForgetWork:
        config = message.content.config_records[wire.CONFIG]
        number, seed = (
            int(str(config.get(k, d))) for k, d in ((wire.SERVER_ROUND, 0), (wire.SEED, self.seed))
        )
        forget, retain = ForgetSpec.from_config(config).split(self.data[client_id])
        return ForgetWork(
            message.content.array_records,
            partial(self._model, config.get(wire.MASK)),
            config,
            retain,
            forget,
            self.settings,
            client_id,
            torch_generator(seed, "client", client_id, "round", number),
            self.strategy,
            number,
        )

    def _model(self, packed: object, arrays: ArrayRecord) -> nn.Module:
        """Return the one model that all clients share, with other weights each time, as a node does."""
        if packed not in self._shared:
            self._shared[packed] = self.build_model()
        model = self._shared[packed]
        wire.load_flat(model, wire.flat_of(arrays, self.layout), self.layout)
        if isinstance(packed, bytes) and not masks_of(model):
            hold(model, masks_in(unpack(packed, self.layout.size), self.layout))
        for name, mask in masks_of(model).items():
            model.get_parameter(name).data.mul_(mask)
        return model


def pooled(federation: Federation, masks: Mapping[str, Tensor]) -> tuple[Examples, Examples]:
    """Return (D_f, D_r) of all clients in one place, client by client, for a mask of D_f by client-id."""
    ordered = sorted(masks, key=wire.client_sort_key)
    parts = [federation.data[i].split(masks[i]) for i in ordered]
    return concatenated(p[0] for p in parts), concatenated(p[1] for p in parts)

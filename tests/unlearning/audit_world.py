"""A federation of two-class models with two weights, for the audit's tests: no grid, no process, all by hand.

An image has two pixels: an input x, and a corner, black but for the trigger. The model's logits are
(0, w·x + t·corner), so that without a trigger the probability of class 1 is 1 / (1 + exp(−w·x)).
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import Tensor, nn

from strategies.client.backdoor import Trigger
from strategies.client.settings import TrainSettings
from strategies.core import wire
from strategies.core.examples import Examples, TensorExamples
from strategies.models.travelling import layout_of
from strategies.plan import TrainingPlan
from strategies.server.cohort import Cohort, Fault, Reply
from strategies.server.members import ClientInfo
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from unlearning.audit.evidence import OwnData, answer_question
from unlearning.run import TrainedRun

SURE = math.log(3.0)
"""The weight at which an input of 1 has probability 3/4 of class 1."""


LAYOUT = wire.Layout(("1.weight",), ((2, 2),))
TRIGGER = Trigger(target=1, size=1)


def weights(w: float, t: float = 0.0) -> Tensor:
    return torch.tensor([0.0, 0.0, w, t])


def two_weight_model() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    wire.load_flat(model, weights(0.0), LAYOUT)
    return model


def loads_into(model: nn.Module) -> Callable[[ArrayRecord], nn.Module]:
    """Return what gives one and the same model the weights of a record, as a client's process does."""
    layout = layout_of(model)

    def load(record: ArrayRecord) -> nn.Module:
        wire.load_flat(model, wire.flat_of(record, layout), layout)
        return model

    return load


def images(*pairs: tuple[float, int]) -> Examples:
    x = torch.tensor([[x, 0.0] for x, _ in pairs]).view(-1, 1, 1, 2)
    return TensorExamples(x, torch.tensor([y for _, y in pairs]))


DATA = {
    "0": images((1, 1), (-1, 0)),
    "1": images((1, 0)),
    "10": images((1, 1), (1, 0), (-1, 1)),
}
TEST = images((1, 1), (1, 1), (-1, 0), (-1, 1))


def trained_run(test: Examples | None = TEST, trigger: Trigger | None = TRIGGER, seed: int = 0) -> TrainedRun:
    return TrainedRun(
        plan=TrainingPlan(StrategySettings(), SelectionSettings(), rounds=1, seed=seed),
        train=TrainSettings(),
        build_model=two_weight_model,
        layout=LAYOUT,
        initial=weights(0.0),
        final=weights(SURE),
        log=None,
        num_groups=2,
        test=test,
        trigger=trigger,
        clients=tuple(DATA),
    )


Answer = tuple[dict[str, float | int], ArrayRecord]


@dataclass
class CohortStandIn:
    """Answers for its clients as the ClientApp would, at once, in the order in which `data` holds them.

    `silent` gives no answer, for the reason given; `tampered` changes a client's answer on its way; `summing`
    tells sums alone; `altered` says which examples clients stage as poisoned or hard.
    """

    data: Mapping[str, Examples] = field(default_factory=lambda: DATA)
    build_model: Callable[[], nn.Module] = two_weight_model
    silent: Mapping[str, str] = field(default_factory=dict)
    tampered: Mapping[str, Callable[[Answer], Answer]] = field(default_factory=dict)
    summing: Collection[str] = ()
    altered: Mapping[str, Tensor] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    questions: dict[str, RecordDict] = field(default_factory=dict)

    @property
    def clients(self) -> dict[str, ClientInfo]:
        ordered = sorted(self.data, key=wire.client_sort_key)
        return {i: ClientInfo(i, node, len(self.data[i])) for node, i in enumerate(ordered)}

    def without(self, client_ids: Collection[str]) -> "CohortStandIn":
        return replace(self, data={i: data for i, data in self.data.items() if i not in client_ids})

    def add_fault(self, client_id: str, scope: str, reason: str) -> None:
        self.faults.append(Fault(client_id, scope, reason))

    def ask(self, message_type: str, content: Callable[[str], RecordDict], scope: str) -> Iterator[Reply]:
        assert message_type == "query.audit"
        for client_id in self.data:
            self.questions[client_id] = content(client_id)
            if client_id in self.silent:
                self.add_fault(client_id, scope, self.silent[client_id])
                continue
            summed = client_id in self.summing
            question, data = self.questions[client_id], self.data[client_id]
            own = OwnData(altered=self.altered.get(client_id))
            load = loads_into(self.build_model())
            answer = answer_question(question, data, load, summed=summed, own=own)
            numbers, arrays = self.tampered.get(client_id, lambda same: same)(answer)
            yield Reply(client_id, cast(Message, SimpleNamespace(content=content_of(numbers, arrays))))

    @property
    def cohort(self) -> Cohort:
        return cast(Cohort, self)


def content_of(numbers: Mapping[str, float | int], arrays: ArrayRecord) -> RecordDict:
    """Pack an answer as `wire.reply_to` does."""
    return RecordDict({"arrays": arrays, "metrics": MetricRecord(dict(numbers)), "config": ConfigRecord()})

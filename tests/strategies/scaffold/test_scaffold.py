"""SCAFFOLD against arithmetic by hand, a slow loop, FedAvg, and answers that are lost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from torch import Tensor, nn

from app.config.run_config import RunConfig
from strategies.client.settings import TrainSettings
from strategies.client.training import ClientJob, TrainStats
from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.core.examples import Examples
from strategies.core.seeds import torch_generator
from strategies.fedavg import FedAvg
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import train
from strategies.scaffold.scaffold import CONTROL, Scaffold, train_client
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
    """A client with the loss a/2 (w − m)², which it descends in full steps."""

    client_id: str
    a: float
    m: float
    n: int = 1
    share: float = 1.0
    state: RecordDict = field(default_factory=RecordDict)
    spoil: Callable[[RecordDict], None] | None = None

    def trainer(self, model: nn.Module, *_: object, adjust: Any = None, **__: object) -> TrainStats:
        """Take K steps of plain gradient descent."""
        (w,) = model.parameters()
        for _step in range(STEPS):
            w.grad = self.a * (w.detach() - self.m)
            if adjust is not None:
                adjust([w])
            w.data.sub_(RATE * w.grad)
        return TrainStats(STEPS, 0.0)

    def __call__(self, message: Message) -> Message:
        """Answer."""
        told = {wire.NUM_EXAMPLES: self.n, wire.LABEL_COUNTS: [self.n]}
        if message.metadata.message_type == wire.DESCRIBE:
            return wire.reply_to(message, self.client_id, told)
        received = message.content
        model = Point(float(wire.state_of(received.array_records[wire.ARRAYS])["w"]))
        job = ClientJob(
            model,
            Examples(torch.zeros(self.n, 1), torch.zeros(self.n, dtype=torch.long)),
            TrainSettings(learning_rate=RATE, local_steps=STEPS, momentum=0.0),
            StrategySettings(name="scaffold", control_share=self.share),
            self.client_id,
            int(str(received.config_records[wire.CONFIG][wire.SERVER_ROUND])),
            torch_generator(0),
            trainer=self.trainer,  # type: ignore[arg-type]
            state=self.state,
            received=received,
        )
        result = train_client(job)
        metrics = {wire.NUM_EXAMPLES: self.n, **result.metrics}
        reply = wire.reply_to(message, self.client_id, metrics, wire.record_of(result.model.state_dict()))
        for name, flat in result.records.items():
            reply.content[name] = wire.record_of({"w": flat})
        if self.spoil is not None:
            self.spoil(reply.content)
        return reply


def run(
    *clients: Hill, rounds: int, name: str = "scaffold", share: float = 1.0, start: Start | None = None
) -> tuple[float, list[RoundResult], dict[str, Tensor], Cohort]:
    """Return the model, the rounds, what a checkpoint holds of the strategy, and the cohort."""
    cohort = Cohort(FakeGrid(dict(enumerate(clients, 1))), 2.0, 0.001)
    cohort.connect(len(clients))
    settings = StrategySettings(name=name, control_share=share)
    kept: dict[str, Tensor] = {}
    results: list[RoundResult] = []

    def on_round(result: RoundResult, strategy: Any) -> None:
        results.append(result)
        kept.clear()
        kept.update({key: tensor.clone() for key, tensor in memory.capture(strategy).items()})

    plan = TrainingPlan(settings, SelectionSettings(), rounds, 0)
    arrays = train(plan, cohort, start or Start(flat_record([0.0])), on_round=on_round)
    return float(wire.state_of(arrays)["w"]), results, kept, cohort


def slow(clients: list[tuple[float, float]], rounds: int, share: float = 1.0) -> tuple[float, float]:
    """Return w and c after rounds of Algorithm 1, option II, as the paper has them, in plain Python."""
    x, c, own = 0.0, 0.0, [0.0] * len(clients)
    for _ in range(rounds):
        ends, changes = [], []
        for i, (a, m) in enumerate(clients):
            y = x
            for _step in range(STEPS):
                y -= RATE * (a * (y - m) - share * own[i] + share * c)
            new = own[i] - c + (x - y) / (STEPS * RATE)
            ends.append(y)
            changes.append(new - own[i])
            own[i] = new
        x = sum(ends) / len(ends)
        c += sum(changes) / len(clients)
    return x, c


def control(kept: Mapping[str, Tensor]) -> float:
    return float(kept["@scaffold|control"])


def test_two_rounds_by_hand() -> None:
    """One client, f = ½(w − 8)², η = 1/8, K = 4: it goes 8 (1 − (7/8)^4) = 3.3105, and c is that over ½."""
    way = 8 * (1 - (7 / 8) ** 4)
    model, _, kept, _ = run(Hill("a", 1.0, 8.0), rounds=1)
    assert model == pytest.approx(way, rel=1e-6)
    assert control(kept) == pytest.approx(-way / (STEPS * RATE), rel=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_it_is_the_papers_algorithm(share: float) -> None:
    hills = [(1.0, 4.0), (3.0, -2.0), (0.5, 1.0)]
    clients = [Hill(str(i), a, m, share=share) for i, (a, m) in enumerate(hills)]
    model, _, kept, _ = run(*clients, rounds=6, share=share)
    expected, expected_control = slow(hills, 6, share)
    assert model == pytest.approx(expected, rel=1e-5)
    assert control(kept) == pytest.approx(expected_control, rel=1e-4, abs=1e-6)


def test_where_fedavg_stops_beside_the_minimum_it_does_not() -> None:
    """Curvatures 0.5 and 4 and minima 4 and 0: the sum has its minimum at 2 / 4.5."""
    hills = (Hill("a", 0.5, 4.0), Hill("b", 4.0, 0.0))
    optimum = 0.5 * 4.0 / 4.5
    plain, *_ = run(*hills, rounds=200, name="fedavg")
    corrected, *_ = run(Hill("a", 0.5, 4.0), Hill("b", 4.0, 0.0), rounds=200)
    assert abs(plain - optimum) > 0.1
    assert corrected == pytest.approx(optimum, abs=1e-4)


def test_the_first_round_and_a_share_of_zero_are_fedavg_to_the_bit() -> None:
    def hills(share: float = 1.0) -> list[Hill]:
        return [Hill("a", 0.7, 3.0, n=2, share=share), Hill("b", 2.1, -1.0, n=5, share=share)]

    assert run(*hills(), rounds=1)[0] == run(*hills(), rounds=1, name="fedavg")[0]
    plain = run(*hills(), rounds=4, name="fedavg")[0]
    assert run(*hills(0.0), rounds=4, share=0.0)[0] == plain
    assert run(*hills(), rounds=4)[0] != plain


@pytest.mark.parametrize("lost", [2, 3])
def test_the_servers_control_stays_the_mean_of_the_clients(lost: int) -> None:
    """Also where an answer is rejected: neither side takes up what the other has not."""

    def spoil(content: RecordDict) -> None:
        nonlocal count
        count += 1
        if count == lost:
            content[CONTROL] = wire.record_of({"w": torch.tensor([torch.nan])})

    count = 0
    clients = [Hill("a", 1.0, 4.0, spoil=spoil), Hill("b", 3.0, -2.0)]
    _, results, kept, cohort = run(*clients, rounds=5)
    assert [sorted(r.accepted) for r in results] == [
        ["b"] if r.round == lost else ["a", "b"] for r in results
    ]
    assert [f.reason for f in cohort.faults] == ["'control': NaN in the parameters"]
    assert len({f.client_id for f in cohort.faults}) == 1
    held = [float(client.state.array_records["scaffold"]["next"].numpy()[0]) for client in clients]
    assert control(kept) == pytest.approx(sum(held) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: content.pop(CONTROL), "wrong keys: expected the array records"),
        (
            lambda content: content.update({CONTROL: wire.record_of({"w": torch.zeros(2)})}),
            "'control': ",
        ),
        (lambda content: content.update({"more": flat_record([0.0])}), "wrong keys: expected the array"),
    ],
)
def test_a_reply_without_what_was_declared_is_rejected(
    spoil: Callable[[RecordDict], None], reason: str
) -> None:
    _, results, _, cohort = run(Hill("a", 1.0, 4.0, spoil=spoil), Hill("b", 3.0, -2.0), rounds=1)
    assert results[0].accepted == ("b",)
    assert cohort.faults[0].reason.startswith(reason)


def test_resumed_it_goes_on_as_if_nothing_had_happened() -> None:
    whole = run(Hill("a", 1.0, 4.0), Hill("b", 3.0, -2.0), rounds=6)[0]
    clients = Hill("a", 1.0, 4.0), Hill("b", 3.0, -2.0)
    half, _, kept, _ = run(*clients, rounds=3)
    start = Start(flat_record([half]), 3, strategy_tensors=kept)
    assert run(*clients, rounds=6, start=start)[0] == whole


def test_another_training_begins_with_control_variates_of_zero() -> None:
    """What a client keeps of one training is nothing to the next: retraining starts without any trace."""
    clients = Hill("a", 1.0, 4.0), Hill("b", 3.0, -2.0)
    first = run(*clients, rounds=3)[0]
    assert run(*clients, rounds=3)[0] == first


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("train.momentum=0.9", "train.momentum: given 0.9, but scaffold tells a client's mean gradient"),
        ("train.optimizer=adam", 'train.optimizer: given "adam", but scaffold tells'),
        ("privacy.unit=example", "privacy.unit: given .* nothing leaves a client but noised updates"),
        ("privacy.secure-aggregation=true", "strategy.name: given .*only the sum of the updates is known"),
    ],
)
def test_what_it_cannot_be_combined_with(key: str, message: str) -> None:
    plain = ["strategy.name=scaffold", "log.enabled=false"]
    assert RunConfig().with_overrides([*plain, "train.momentum=0"]).strategy.name == "scaffold"
    with pytest.raises(BadInput, match=message):
        RunConfig().with_overrides([*plain, *([] if "train" in key else ["train.momentum=0"]), key])


def test_it_belongs_inside_the_guard() -> None:
    strategy = Scaffold(FedAvg(), {1: "a"})
    assert strategy.is_weighted_average
    grid = FakeGrid({1: Hill("a", 1.0, 4.0)})
    sent = list(strategy.configure_train(1, flat_record([0.0]), ConfigRecord({}), grid))
    with pytest.raises(LetheError, match="put Scaffold inside the guard"):
        strategy.aggregate_train(1, sent)

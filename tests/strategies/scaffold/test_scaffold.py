"""SCAFFOLD against arithmetic by hand, a slow loop, FedAvg, and answers that are lost."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict
from torch import Tensor

from app.config.run_config import RunConfig
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.fedavg import FedAvg
from strategies.plan import Start
from strategies.scaffold.scaffold import CONTROL, Scaffold
from strategies.settings import StrategySettings
from tests.strategies.fakes import FakeGrid, flat_record
from tests.strategies.hills import RATE, STEPS, Hill, run


def hill(client_id: str, a: float, m: float, share: float = 1.0, **more: Any) -> Hill:
    return Hill(client_id, a, m, StrategySettings(name="scaffold", control_share=share), **more)


def plain(*clients: Hill) -> list[Hill]:
    """Return the same clients with federated averaging."""
    return [Hill(c.client_id, c.a, c.m, StrategySettings(), c.n) for c in clients]


def slow(
    clients: list[tuple[float, float]], rates: Sequence[Sequence[float]], share: float = 1.0
) -> tuple[float, float]:
    """Return w and c after rounds of Algorithm 1, option II, in plain Python: c_i is a mean gradient.

    The mean over a round's local steps, each weighing its rate; at a constant rate it is the paper's.
    """
    x, c, own = 0.0, 0.0, [0.0] * len(clients)
    for of_round in rates:
        ends, changes = [], []
        for i, (a, m) in enumerate(clients):
            y, seen = x, 0.0
            for rate in of_round:
                gradient = a * (y - m)
                seen += rate * gradient / sum(of_round)
                y -= rate * (gradient - share * own[i] + share * c)
            new = seen if share == 1 else own[i] - c + (x - y) / sum(of_round)
            ends.append(y)
            changes.append(new - own[i])
            own[i] = new
        x = sum(ends) / len(ends)
        c += sum(changes) / len(clients)
    return x, c


def control(kept: Mapping[str, Tensor]) -> float:
    return float(kept["@scaffold|control"])


def test_a_round_by_hand() -> None:
    """One client, f = ½(w − 8)², η = 1/8, K = 4: it goes 8 (1 − (7/8)^4), and c is that over −K η."""
    way = 8 * (1 - (7 / 8) ** 4)
    ended = run(hill("a", 1.0, 8.0), rounds=1)
    assert ended.model == pytest.approx(way, rel=1e-6)
    assert control(ended.memory) == pytest.approx(-way / (STEPS * RATE), rel=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_it_is_the_papers_algorithm(share: float) -> None:
    hills = [(1.0, 4.0), (3.0, -2.0), (0.5, 1.0)]
    ended = run(*(hill(str(i), a, m, share) for i, (a, m) in enumerate(hills)), rounds=6)
    expected, expected_control = slow(hills, [[RATE] * STEPS] * 6, share)
    assert ended.model == pytest.approx(expected, rel=1e-5)
    assert control(ended.memory) == pytest.approx(expected_control, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("schedule", [{"schedule": "cosine"}, {"schedule": "step", "warm_up": 1.5}])
def test_under_a_schedule_a_control_variate_stays_the_mean_gradient(schedule: dict[str, Any]) -> None:
    """What a client went is divided by the sum of its steps' rates, which differ from round to round."""
    hills = [(1.0, 4.0), (3.0, -2.0), (0.5, 1.0)]
    clients = [hill(str(i), a, m, schedule=schedule) for i, (a, m) in enumerate(hills)]
    ended = run(*clients, rounds=6)
    rates = [clients[0].train.rates(number, 6, STEPS) for number in range(1, 7)]
    assert len({tuple(each) for each in rates}) > 2
    expected, expected_control = slow(hills, rates)
    assert ended.model == pytest.approx(expected, rel=1e-5)
    assert control(ended.memory) == pytest.approx(expected_control, rel=1e-4, abs=1e-6)


def test_where_fedavg_stops_beside_the_minimum_it_does_not() -> None:
    """Curvatures 0.5 and 4 and minima 4 and 0: the sum has its minimum at 2 / 4.5."""
    hills = hill("a", 0.5, 4.0), hill("b", 4.0, 0.0)
    optimum = 0.5 * 4.0 / 4.5
    assert abs(run(*plain(*hills), rounds=200).model - optimum) > 0.1
    assert run(*hills, rounds=200).model == pytest.approx(optimum, abs=1e-4)


def test_the_first_round_and_a_share_of_zero_are_fedavg_to_the_bit() -> None:
    def hills(share: float = 1.0) -> list[Hill]:
        return [hill("a", 0.7, 3.0, share, n=2), hill("b", 2.1, -1.0, share, n=5)]

    assert run(*hills(), rounds=1).model == run(*plain(*hills()), rounds=1).model
    averaged = run(*plain(*hills()), rounds=4).model
    assert run(*hills(0.0), rounds=4).model == averaged
    assert run(*hills(), rounds=4).model != averaged


@pytest.mark.parametrize("lost", [2, 3])
def test_the_servers_control_stays_the_mean_of_the_clients(lost: int) -> None:
    """Also where an answer is rejected: neither side takes up what the other has not."""

    def spoil(content: RecordDict) -> None:
        nonlocal count
        count += 1
        if count == lost:
            content[CONTROL] = wire.record_of({"w": torch.tensor([torch.nan])})

    count = 0
    clients = hill("a", 1.0, 4.0, spoil=spoil), hill("b", 3.0, -2.0)
    ended = run(*clients, rounds=5)
    accepted = [sorted(r.accepted) for r in ended.rounds]
    assert accepted == [["b"] if r.round == lost else ["a", "b"] for r in ended.rounds]
    assert [(f.client_id, f.reason) for f in ended.cohort.faults] == [
        ("a", "'control': NaN in the parameters")
    ]
    held = [float(client.state.array_records["scaffold"]["next"].numpy()[0]) for client in clients]
    assert control(ended.memory) == pytest.approx(sum(held) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: content.pop(CONTROL), "wrong keys: expected the array records"),
        (lambda content: content.update({CONTROL: wire.record_of({"w": torch.zeros(2)})}), "'control': "),
        (lambda content: content.update({"more": flat_record([0.0])}), "wrong keys: expected the array"),
    ],
)
def test_a_reply_without_what_was_declared_is_rejected(
    spoil: Callable[[RecordDict], None], reason: str
) -> None:
    ended = run(hill("a", 1.0, 4.0, spoil=spoil), hill("b", 3.0, -2.0), rounds=1)
    assert ended.rounds[0].accepted == ("b",)
    assert ended.cohort.faults[0].reason.startswith(reason)


def test_resumed_it_goes_on_as_if_nothing_had_happened() -> None:
    whole = run(hill("a", 1.0, 4.0), hill("b", 3.0, -2.0), rounds=6).model
    clients = hill("a", 1.0, 4.0), hill("b", 3.0, -2.0)
    half = run(*clients, rounds=3)
    start = Start(flat_record([half.model]), 3, strategy_tensors=half.memory)
    assert run(*clients, rounds=6, start=start).model == whole


def test_another_training_begins_with_control_variates_of_zero() -> None:
    """What a client keeps of one training is nothing to the next: retraining starts without any trace."""
    clients = hill("a", 1.0, 4.0), hill("b", 3.0, -2.0)
    first = run(*clients, rounds=3).model
    assert run(*clients, rounds=3).model == first


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
    chosen = ["strategy.name=scaffold", "log.enabled=false"]
    assert RunConfig().with_overrides([*chosen, "train.momentum=0"]).strategy.name == "scaffold"
    with pytest.raises(BadInput, match=message):
        RunConfig().with_overrides([*chosen, *([] if "train" in key else ["train.momentum=0"]), key])


def test_it_belongs_inside_the_guard() -> None:
    strategy = Scaffold(FedAvg(), {1: "a"})
    assert strategy.is_weighted_average
    grid = FakeGrid({1: hill("a", 1.0, 4.0)})
    sent = list(strategy.configure_train(1, flat_record([0.0]), ConfigRecord({}), grid))
    with pytest.raises(RuntimeError, match="put Scaffold inside GuardedStrategy"):
        strategy.aggregate_train(1, sent)

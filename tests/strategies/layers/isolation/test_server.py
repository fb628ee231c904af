"""Groups that are trained apart, in one training: each is what it would be alone, to the bit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from strategies.core import wire
from strategies.core.isolation import group_of
from strategies.log.strategy import LoggedStrategy
from strategies.log.update_log import UpdateLog
from strategies.models.ensemble import members_of, whole_layout
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import train
from strategies.server import memory
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.strategies.compression.nodes import LAYOUT
from tests.strategies.fakes import Answer, FakeGrid, adds, node_answer, raises
from tests.strategies.test_log_of_cohorts import ChangingGrid, member

ONE = wire.Layout(("w",), ((1,),))
NAMES = ["fedavg", "fedprox", "fedavgm", "fedadam", "flwr:FedAdam"]


def halving(client_id: str, num_examples: int, target: float) -> Answer:
    """Return a client that goes half of the way to its target."""
    return node_answer(client_id, num_examples, lambda old, _: old + (target - old) / 2)


CLIENTS = {str(i): halving(str(i), 3 + i, 5.0 * i) for i in range(6)}


def trained(
    clients: Sequence[str], plan: TrainingPlan, start: Start, answers: dict[str, Answer] | None = None
) -> tuple[Tensor, list[RoundResult], dict[str, Tensor], Cohort]:
    """Train some clients; return the model, the rounds, what a checkpoint holds of the strategy."""
    known = answers or CLIENTS
    cohort = Cohort(FakeGrid({int(i) + 1: known[i] for i in clients}, shuffle=0), 2.0, 0.001)
    cohort.connect(len(clients))
    results: list[RoundResult] = []
    kept: dict[str, Tensor] = {}

    def on_round(result: RoundResult, strategy: Any) -> None:
        results.append(result)
        kept.clear()
        kept.update({key: tensor.clone() for key, tensor in memory.capture(strategy).items()})

    arrays = train(plan, cohort, start, on_round=on_round)
    return wire.flat_of(arrays, wire.layout_of(arrays)), results, kept, cohort


def plan_of(name: str = "fedavg", groups: int = 2, rounds: int = 3, **more: Any) -> TrainingPlan:
    """Return a plan of groups that are trained apart."""
    selection = more.pop("selection", SelectionSettings())
    return TrainingPlan(StrategySettings(name=name, **more), selection, rounds, seed=3, isolation=groups)


def from_zero(*values: float) -> Start:
    """Return a start at an ensemble of one number each, or at a single one."""
    return Start(wire.FlatRecord(torch.tensor(values), whole_layout(ONE, len(values))))


def test_two_groups_by_hand() -> None:
    """0 adds 1 and 2 adds 4 with weights 1/4 and 3/4: 3.25; 1 adds 10 to −5; 3 fails."""
    answers = {
        "0": node_answer("0", 1, adds(1.0)),
        "1": node_answer("1", 7, adds(10.0)),
        "2": node_answer("2", 3, adds(4.0)),
        "3": node_answer("3", 1, adds(1.0)),
    }
    described = answers["3"]
    answers["3"] = lambda m: raises(m) if m.metadata.message_type == wire.TRAIN else described(m)
    flat, results, _, _ = trained("0123", plan_of(rounds=1), from_zero(0.5, -5.0), answers)
    assert flat.tolist() == [3.75, 5.0]
    assert sorted(results[0].accepted) == ["0", "1", "2"]
    assert results[0].metrics[wire.TRAIN_LOSS] == (1 * 1 + 3 * 3 + 7 * 7) / 11


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_each_group_is_what_it_would_be_alone(name: str, fraction: float) -> None:
    """The slow way: one training after the other, of its clients only."""
    selection = SelectionSettings(fraction=fraction)
    together, *_ = trained(list("012345"), plan_of(name, selection=selection), from_zero(1.0, 2.0))
    alone = plan_of(name, groups=1, selection=selection)
    first, *_ = trained(["0", "2", "4"], alone, from_zero(1.0))
    second, *_ = trained(["1", "3", "5"], alone, from_zero(2.0))
    assert together.tolist() == [float(first), float(second)]


def test_who_leaves_changes_its_own_group_only() -> None:
    all_there, *_ = trained(list("012345"), plan_of(), from_zero(1.0, 2.0))
    without, *_ = trained(list("01235"), plan_of(), from_zero(1.0, 2.0))
    assert without[0] != all_there[0]
    assert without[1] == all_there[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_training_goes_on_as_if_nothing_had_happened(name: str) -> None:
    whole, *_ = trained(list("0123"), plan_of(name, rounds=4), from_zero(1.0, 2.0))
    _, half, kept, _ = trained(list("0123"), plan_of(name, rounds=2), from_zero(1.0, 2.0))
    again = Start(half[-1].arrays, 2, kept)
    resumed, *_ = trained(list("0123"), plan_of(name, rounds=4), again)
    assert resumed.tolist() == whole.tolist()


def test_a_group_without_a_client_has_no_model_and_a_late_client_of_it_is_named() -> None:
    flat, results, _, _ = trained(["0", "2"], plan_of(), from_zero(1.0, 2.0))
    assert flat[1] == 0
    begun = Start(results[-1].arrays, 3)
    later, more, _, cohort = trained(["0", "1", "2"], plan_of(rounds=4), begun)
    assert later[1] == 0
    assert [(f.client_id, f.reason[:26]) for f in cohort.faults] == [("1", "its group had no client wh")]
    assert more[0].accepted == ("0", "2")


def test_everybody_is_missing_where_no_group_has_a_reply() -> None:
    described = CLIENTS["0"]
    answers = {"0": lambda m: raises(m) if m.metadata.message_type == wire.TRAIN else described(m)}
    flat, results, _, cohort = trained(["0"], plan_of(rounds=1), from_zero(1.0, 2.0), answers)
    assert flat.tolist() == [1.0, 0.0]
    assert results[0].accepted == ()
    assert cohort.faults[-1].reason == "no usable reply: the model is kept as it was"


@pytest.mark.parametrize("name", ["fedavg", "fedavgm"])
@pytest.mark.parametrize("retention", ["full", "sum"])
def test_each_groups_model_moves_by_what_the_log_says(name: str, retention: str, tmp_path: Path) -> None:
    """Clients join, leave and lie; the weights of a group add up to 1, or to the server's learning rate."""
    more = {"server_learning_rate": 0.5, "server_momentum": 0.0} if name == "fedavgm" else {}
    plan = plan_of(name, rounds=4, **more)
    members = [
        member(0, 10, plan),
        member(1, 400, plan, first=2, lies={3: "NaN"}),
        member(2, 7, plan, lies={2: "error"}),
        member(3, 60, plan, last=2),
    ]
    for number, each in enumerate(members):
        each.client_id = str(number)
    grid = ChangingGrid({}, members=members)
    grid.at(1)
    cohort = Cohort(grid, 0.05, poll_seconds=0.001)
    cohort.connect(wait_seconds=0.05)
    layout = whole_layout(LAYOUT, 2)
    start = torch.linspace(-1, 1, layout.size)
    models = [start]
    rate = more.get("server_learning_rate", 1.0)
    with UpdateLog.create(tmp_path / "log", LAYOUT, retention) as log:

        def note(result: RoundResult, _: object) -> None:
            models.append(wire.flat_of(result.arrays, layout))
            grid.at(result.round + 1)

        begin = Start(wire.FlatRecord(start, layout))
        train(plan, cohort, begin, layer=lambda inner: LoggedStrategy(inner, log), on_round=note)
        for group in range(2):
            own = log.only(lambda client_id, group=group: group_of(client_id, 2) == group)
            for number in own.rounds():
                assert sum(e.weight for e in own.entries(number)) == pytest.approx(rate)
            said = sum(own.weighted_sum(i).double() for i in own.clients())
            moved = members_of(models[-1] - models[0], 2)[group].double()
            torch.testing.assert_close(said, moved, rtol=1e-5, atol=2e-6)
            assert own.averaging_rounds() == own.rounds()
    assert sorted(e.client_id for e in log.entries(3)) == ["0", "2"]
    assert log.only(lambda client_id: client_id == "3").rounds() == [1, 2]

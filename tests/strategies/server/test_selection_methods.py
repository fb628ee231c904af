"""Selection by hand, by frequency, with late clients, and over an interruption."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st

from strategies.core import wire
from strategies.fedavg import FedAvg
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import train
from strategies.server import memory as strategy_state
from strategies.server.clock import Clock
from strategies.server.cohort import Cohort
from strategies.server.selection import ask_clients, select_clients
from strategies.server.selection_methods import Candidates, Known, LastKnownLoss, choose
from strategies.server.settings import SelectionSettings, check_speeds
from strategies.server.wrapper import StrategyWrapper
from strategies.settings import StrategySettings
from tests.strategies.fakes import FakeGrid, adds, flat_record, node_answer

METHODS = ["uniform", "power-of-choice", "oort", "budgeted"]
SIZES = {str(i): 10 * (i + 1) for i in range(8)}


def with_method(method: str, **more: object) -> SelectionSettings:
    return SelectionSettings.model_validate({"method": method, **more})


def test_power_of_choice_by_hand() -> None:
    """All are candidates; b was never heard of, c has the largest loss, a the smallest."""
    known = {"a": Known(1, 1, 0.1), "c": Known(1, 1, 2.0), "d": Known(1, 1, 1.0)}
    candidates = Candidates({"a": 1, "b": 1, "c": 1, "d": 1}, known, {})
    assert choose(candidates, 2, with_method("power-of-choice", candidates=4), 0, 1) == ["b", "c"]


def test_oort_by_hand() -> None:
    """Utilities 10·1, 20·1·(1/2)² as it takes twice the median, 8·1, in round 1 without a bonus: a and c."""
    known = {i: Known(1, 1, 1.0) for i in "abc"}
    candidates = Candidates({"a": 10, "b": 20, "c": 8}, known, {"a": 1.0, "b": 2.0, "c": 1.0})
    assert choose(candidates, 2, with_method("oort", explore=0.0), 0, 1) == ["a", "c"]
    equal = replace(candidates, seconds={})
    assert choose(equal, 2, with_method("oort", explore=0.0), 0, 1) == ["a", "b"]


def test_oort_leaves_places_for_those_never_asked() -> None:
    known = {i: Known(1, 1, 5.0) for i in "abcd"}
    candidates = Candidates(dict.fromkeys("abcdefgh", 10), known, {})
    chosen = choose(candidates, 4, with_method("oort", explore=0.25), 0, 3)
    assert len(set(chosen) & set("efgh")) == 1


def test_oort_comes_back_to_those_not_heard_for_long() -> None:
    """Equal but for the round last heard: in round 100 the one of round 1 has the larger bonus."""
    known = {"a": Known(1, 99, 1.0), "b": Known(1, 1, 1.0)}
    candidates = Candidates({"a": 10, "b": 10}, known, {})
    assert choose(candidates, 1, with_method("oort", explore=0.0), 0, 100) == ["b"]


def test_candidates_are_drawn_by_their_examples() -> None:
    """One candidate of two with 1 and 3 examples: b in three quarters of 2,000 rounds."""
    candidates = Candidates({"a": 1, "b": 3}, {}, {})
    one = with_method("power-of-choice", candidates=1)
    drawn = [choose(candidates, 1, one, 0, r)[0] for r in range(2000)]
    assert drawn.count("b") / 2000 == pytest.approx(0.75, abs=0.04)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(METHODS), st.integers(0, 99), st.integers(1, 9), st.floats(0.1, 1.0), st.floats(1, 3))
def test_whom_it_asks_is_a_function_of_seed_round_and_ids(
    method: str, seed: int, server_round: int, fraction: float, over: float
) -> None:
    selection = with_method(method, fraction=fraction, over_selection=over, speeds="pareto:1")
    asked = ask_clients(SIZES, {}, selection, seed, server_round)
    turned = ask_clients(dict(reversed(SIZES.items())), {}, selection, seed, server_round)
    assert asked == turned
    assert asked.clients == sorted(set(asked.clients), key=wire.client_sort_key)
    assert len(asked.clients) == asked.awaited + len(asked.late)
    assert all(asked.seconds is not None and time >= asked.seconds for time in asked.late.values())


@pytest.mark.parametrize("method", METHODS)
def test_everybody_is_the_neutral_choice(method: str) -> None:
    assert ask_clients(SIZES, {}, with_method(method), 0, 1).clients == list(SIZES)


def test_uniform_asks_whom_it_always_asked() -> None:
    half = SelectionSettings(fraction=0.5)
    for server_round in range(5):
        plain = select_clients(SIZES, half, 3, server_round)
        assert ask_clients(SIZES, {}, half, 3, server_round).clients == plain


def test_a_deadline_takes_whom_it_can_get() -> None:
    """10, 20, 30 examples at 0.01 s: with 0.25 s the third is late, and the round takes all of the 0.25 s."""
    selection = SelectionSettings(speeds="equal", deadline=0.25)
    asked = ask_clients({"a": 10, "b": 20, "c": 30}, {}, selection, 0, 1)
    assert asked.late == {"c": pytest.approx(0.3)}
    assert asked.seconds == 0.25


def test_speeds_follow_their_distribution() -> None:
    """P(factor > f) = f^-2: a quarter above 2; a lognormal has its median at 1."""
    pareto = [Clock("pareto:2", 0).factor(str(i)) for i in range(2000)]
    assert min(pareto) >= 1
    assert sum(f > 2 for f in pareto) / 2000 == pytest.approx(0.25, abs=0.04)
    lognormal = [Clock("lognormal:1", 0).factor(str(i)) for i in range(2000)]
    assert sum(f > 1 for f in lognormal) / 2000 == pytest.approx(0.5, abs=0.05)
    assert Clock("equal", 0).seconds("a", 5) == 0.05


def run(
    selection: SelectionSettings, rounds: int, start: Start | None = None
) -> tuple[list[RoundResult], list[Start]]:
    nodes = {i: node_answer(str(i), 10 * i, adds(float(i))) for i in range(1, 7)}
    cohort = Cohort(FakeGrid(nodes), 0.5, 0.001)
    cohort.connect(6)
    results: list[RoundResult] = []
    states: list[Start] = []

    def note(result: RoundResult, strategy: object) -> None:
        assert isinstance(strategy, StrategyWrapper)
        results.append(result)
        states.append(Start(result.arrays, result.round, strategy_state.capture(strategy)))

    plan = TrainingPlan(StrategySettings(), selection, rounds, 0)
    train(plan, cohort, start or Start(flat_record([0.0])), on_round=note)
    return results, states


def test_late_replies_do_not_count_and_are_named() -> None:
    """Of 6 equally fast clients 4 are asked and the 2 with fewer examples are used."""
    selection = SelectionSettings(fraction=1 / 3, over_selection=2.0, speeds="equal")
    results, _ = run(selection, 1)
    chosen = sorted(results[0].selected, key=int)
    assert list(results[0].accepted) == chosen[:2]
    assert [fault.client_id for fault in results[0].faults] == chosen[2:]
    assert "simulated seconds" in results[0].faults[0].reason
    assert results[0].metrics["simulated-seconds"] == pytest.approx(0.1 * int(chosen[1]))


def test_without_a_clock_the_first_to_answer_are_used() -> None:
    results, _ = run(SelectionSettings(fraction=1 / 3, over_selection=1.5), 1)
    assert len(results[0].selected) == 3
    assert len(results[0].accepted) == 2
    assert [fault.reason for fault in results[0].faults] == ["late: enough others had answered"]


def test_a_budget_is_kept() -> None:
    results, _ = run(with_method("budgeted", fraction=0.5, budget=2), 9)
    asked = [client_id for result in results for client_id in result.selected]
    assert {asked.count(str(i)) for i in range(1, 7)} == {2}
    assert results[-1].selected == ()
    assert results[-1].faults[0].reason.startswith("no usable reply")


@pytest.mark.parametrize("method", ["power-of-choice", "oort", "budgeted"])
def test_an_interruption_does_not_change_whom_it_asks(method: str) -> None:
    selection = with_method(method, fraction=0.34)
    whole, states = run(selection, 5)
    rest, _ = run(selection, 5, states[2])
    assert [result.selected for result in whole[3:]] == [result.selected for result in rest]


@pytest.mark.parametrize("text", ["", "fast", "pareto", "pareto:0", "lognormal:x", "equal:1"])
def test_speeds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="lognormal:<sigma>"):
        check_speeds(text)


def test_what_is_known_of_clients_is_two_tensors_of_a_checkpoint() -> None:
    """Not one for each client, as earlier versions had; those are read, too."""
    first, again, old = (LastKnownLoss(FedAvg()) for _ in range(3))
    assert first.memory() == {}
    first.known |= {"7": Known(2, 1, 0.5), "a.b": Known(1)}
    tensors = first.memory()
    assert len(tensors) == 2
    again.recall(tensors)
    assert list(again.known.items()) == list(first.known.items())
    old.recall({"7": torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)})
    assert old.known == {"7": Known(2, 1, 0.5)}

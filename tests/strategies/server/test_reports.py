"""What clients report: only known names with possible numbers reach anything that reads them."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import MetricRecord, RecordDict
from hypothesis import given, strategies as st

from app.workflows.training_rounds import round_json
from strategies.coded_gd import coded_gd
from strategies.core import wire
from strategies.fedmd import client as fedmd, server as fedmd_server
from strategies.flower import flower as builtin
from strategies.gossip import gossip
from strategies.layers.privacy.settings import PrivacySettings
from strategies.one_shot import one_shot
from strategies.personal import measuring as personal
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.registry import all_traits, lookup
from strategies.rounds import train
from strategies.server import reports
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.strategies.fakes import Answer, FakeGrid, adds, flat_record, node_answer, spoiled

SERVERS = {
    "test-accuracy",
    "test-loss",
    "simulated-seconds",
    wire.WITHHELD,
    wire.STALENESS,
    coded_gd.DECODED,
    gossip.DISTANCE,
    gossip.EIGENVALUE,
    one_shot.MEMBERS,
    one_shot.MEMBER_ACCURACY,
    one_shot.ENSEMBLE_ACCURACY,
    one_shot.DISTILLED_ACCURACY,
    one_shot.AGREEMENT,
    personal.GLOBAL_WORST,
    personal.PERSONAL_WORST,
    fedmd_server.GAIN,
    fedmd_server.MEAN_ACCURACY,
    "epsilon-round",
    "clients-made-anew",
}
"""Figures that the server writes into a round's metrics."""
NASTY: dict[str, Any] = {
    "clients": 3,
    "round": 7,
    "test-accuracy": 100.0,
    "seconds": -1.0,
    "accepted": 1,
    "epsilon": 1e-9,
    "simulated-seconds": 0.0,
    "x" * 5000: 1,
}


def lying(**numbers: Any) -> Callable[[RecordDict], None]:
    """Return what puts numbers into a reply's metric record."""

    def spoil(content: RecordDict) -> None:
        for name, value in numbers.items():
            content.metric_records[wire.METRICS][name] = value

    return spoil


def liar(kind: str = wire.TRAIN, **numbers: Any) -> Answer:
    return spoiled(node_answer("liar", 3, adds(4.0)), lying(**numbers), kind)


def run(
    answers: dict[int, Answer], name: str = "fedavg", rounds: int = 2, **more: Any
) -> tuple[list[RoundResult], Cohort]:
    cohort = Cohort(FakeGrid(answers), 1.0, poll_seconds=0.001)
    cohort.connect(wait_seconds=0.05)
    results: list[RoundResult] = []
    plan = TrainingPlan(StrategySettings(name=name), SelectionSettings(), rounds, 0, **more)
    start = Start(flat_record([0.0]))
    train(
        plan,
        cohort,
        start,
        evaluate=lambda _: {"test-accuracy": 50.0},
        on_round=lambda r, _: results.append(r),
    )
    return results, cohort


def honest() -> Answer:
    return node_answer("a", 1, adds(2.0))


def names_of_lines() -> set[str]:
    """Return the keys of a line of ``metrics.jsonl`` that are no figures of a round."""
    empty = RoundResult(
        1, flat_record([]), {}, (), (), (), Cohort(FakeGrid({})).traffic, 0.0, {"a": {}}, {"epsilons": {}}
    )
    return set(round_json(empty))


ALGORITHMS = [lookup(traits.name) for traits in all_traits()]


def test_no_name_of_a_client_is_the_servers() -> None:
    """By construction: no table of any strategy has a name in common with what the server writes."""
    tables = [reports.TRAINING, reports.EVALUATION, reports.PRIVATE]
    tables += [t for spec in ALGORITHMS for t in (spec.reports, spec.returns)]
    known = {name for table in tables for name in table}
    assert not known & (SERVERS | names_of_lines())
    assert not {name for name in known if name.startswith(("client-", "test-"))}
    assert {wire.TRAIN_LOSS, fedmd.UPPER_BOUND, personal.PERSONAL, coded_gd.CODED_EXAMPLES} <= known


@pytest.mark.parametrize("name", ["fedavg", "fedbuff", "gossip", "flwr:FedAvg", "flwr:Krum"])
@pytest.mark.parametrize("lie", NASTY)
def test_a_name_that_is_no_clients_is_left_out_and_told(name: str, lie: str) -> None:
    """The update counts, the number does not; the next round goes on."""
    results, cohort = run({1: honest(), 2: liar(**{lie: NASTY[lie]})}, name)
    clean, _ = run({1: honest(), 2: node_answer("liar", 3, adds(4.0))}, name)
    assert [r.metrics for r in results] == [r.metrics for r in clean]
    assert [sorted(r.accepted) for r in results] == [sorted(r.accepted) for r in clean]
    assert {f.client_id for f in cohort.faults} == {"liar"}
    assert all(len(f.reason) < 120 and ": no name of a client's: left out" in f.reason for f in cohort.faults)
    line = json.loads(json.dumps(round_json(results[-1]), default=str))
    assert (line["round"], line["test-accuracy"]) == (2, 50.0)
    assert "clients" not in line


@pytest.mark.parametrize("name", ["fedavg", "fedasync", "flwr:FedAvg", "gossip"])
@pytest.mark.parametrize("loss", [math.inf, -math.inf, math.nan, 5e305, [1.0, 2.0]])
def test_a_loss_that_cannot_be_is_left_out(name: str, loss: Any) -> None:
    results, cohort = run({1: honest(), 2: liar(**{wire.TRAIN_LOSS: loss})}, name, rounds=3)
    assert {i for r in results for i in r.accepted} == {"a", "liar"}
    assert all(math.isfinite(v) for r in results for v in r.metrics.values())
    assert {f.client_id for f in cohort.faults} == {"liar"}
    assert all(f.reason.startswith("reports train-loss is ") for f in cohort.faults)


@pytest.mark.parametrize("name", ["flwr:FedAvg", "flwr:FedAdam"])
def test_flowers_strategies_bear_replies_with_different_metrics(name: str) -> None:
    """One reply without a loss, one whose record has another name: Flower itself refuses the round."""

    def renamed(content: RecordDict) -> None:
        content["mine"] = content.metric_records[wire.METRICS]
        del content[wire.METRICS]
        del content.metric_records["mine"][wire.TRAIN_LOSS]

    results, cohort = run({1: honest(), 2: spoiled(node_answer("b", 3, adds(4.0)), renamed)}, name)
    assert [sorted(r.accepted) for r in results] == [["a", "b"]] * 2
    assert cohort.faults == []


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ({wire.ACCURACY: 1e9}, "reports accuracy is 1e+09: not used"),
        ({wire.ACCURACY: math.nan}, "reports accuracy is nan: not used"),
        ({wire.NUM_EXAMPLES: math.inf}, "num-examples is inf, expected a positive whole number"),
        ({wire.NUM_EXAMPLES: 24}, "num-examples is 24, at most 23 by what the client described"),
        ({"clients": 3}, "reports 'clients': no name of a client's: left out"),
    ],
)
@pytest.mark.parametrize("name", ["fedavg", "flwr:FedAvg"])
def test_federated_evaluation_counts_what_can_be(name: str, numbers: dict[str, Any], reason: str) -> None:
    on_held_out = {"federated_evaluation": True, "local_test_share": 0.5}
    results, cohort = run({1: honest(), 2: liar(wire.EVALUATE, **numbers)}, name, **on_held_out)
    assert [r.metrics["client-accuracy"] for r in results] == [50.0, 50.0]
    assert [(f.client_id, f.scope, f.reason) for f in cohort.faults] == [
        ("liar", f"evaluation after round {t}", reason) for t in (1, 2)
    ]


@pytest.mark.parametrize(("kind", "what"), [(wire.TRAIN, "trains on"), (wire.EVALUATE, "is measured on")])
def test_a_number_of_examples_that_changes_between_rounds_is_named(kind: str, what: str) -> None:
    """3, 2, 2, 3 examples: within what it described, and used, but two times not what it said before."""
    claimed = iter([3, 2, 2, 3])
    turning = spoiled(
        node_answer("liar", 3, adds(4.0)),
        lambda content: content.metric_records[wire.METRICS].update({wire.NUM_EXAMPLES: next(claimed)}),
        kind,
    )
    results, cohort = run(
        {1: honest(), 2: turning}, rounds=4, federated_evaluation=True, local_test_share=0.5
    )
    assert [sorted(r.accepted) for r in results] == [["a", "liar"]] * 4
    place = "round" if kind == wire.TRAIN else "evaluation after round"
    assert [(f.client_id, f.scope, f.reason) for f in cohort.faults] == [
        ("liar", f"{place} 2", f"says that it {what} 2 examples, 3 before"),
        ("liar", f"{place} 4", f"says that it {what} 3 examples, 2 before"),
    ]


def test_a_client_that_hides_its_size_is_measured_on_no_more_than_it_claims() -> None:
    """It would else weigh as much as it likes: what is hidden bounds nothing."""

    def hide(content: RecordDict) -> None:
        content.config_records[wire.CONFIG][wire.HIDDEN] = True
        content[wire.METRICS] = MetricRecord({wire.NUM_EXAMPLES: 1})

    hidden = spoiled(
        liar(wire.EVALUATE, **{wire.NUM_EXAMPLES: 2**30, wire.ACCURACY: 0.0}), hide, wire.DESCRIBE
    )
    results, cohort = run({1: honest(), 2: hidden}, federated_evaluation=True, local_test_share=0.5)
    assert [r.metrics["client-accuracy"] for r in results] == [50.0, 50.0]
    reasons = {f.scope: f.reason for f in cohort.faults}
    assert reasons["evaluation after round 1"].startswith("num-examples is 1073741824, at most 1 by")


def test_a_client_that_hides_what_it_has_spent_ends_no_private_run() -> None:
    """Its update is not used; the ε of the other is the run's."""
    private = PrivacySettings(unit="client-local", noise_multiplier=1.0, delta=0.01)
    honest = spoiled(node_answer("a", 1, adds(2.0)), lying(**{wire.EPSILON: 2.0, wire.NOISE_MULTIPLIER: 1.0}))
    for lie in ({}, {wire.EPSILON: math.nan}, {wire.EPSILON: -1.0}):
        results, cohort = run({1: honest, 2: liar(**lie)}, privacy=private)
        assert [r.accepted for r in results] == [("a",), ("a",)]
        assert results[-1].metrics[wire.EPSILON] == 2.0
        assert {(f.client_id, f.reason.endswith("no epsilon: not used")) for f in cohort.faults} == {
            ("liar", True)
        }


def test_a_run_without_privacy_claims_none() -> None:
    results, _ = run({1: honest(), 2: liar(**{wire.EPSILON: 0.1})})
    assert wire.EPSILON not in results[-1].metrics


@given(
    st.dictionaries(
        st.sampled_from([wire.TRAIN_LOSS, wire.NUM_STEPS, wire.NUM_EXAMPLES, "round", "x"]),
        st.floats() | st.integers() | st.lists(st.integers(), max_size=2),
    )
)
def test_what_is_rebuilt_is_known_and_possible(record: dict[str, Any]) -> None:
    numbers, unknown, impossible = reports.rebuilt(record, reports.TRAINING)
    assert set(numbers) <= {*reports.TRAINING, wire.NUM_EXAMPLES}
    for name in set(numbers) - {wire.NUM_EXAMPLES}:
        assert reports.TRAINING[name].low <= numbers[name] <= reports.TRAINING[name].high
    assert len(numbers) + len(unknown) + len(impossible) == len(record)
    assert reports.rebuilt(numbers, reports.TRAINING) == (numbers, [], [])


@pytest.mark.parametrize(
    "client_id", ["", "9" * 5000, "a,b", "a b", "ä", "../a", "-a", "a\n", "all", "a" * 65, "node 7"]
)
def test_an_impossible_client_id_is_refused_where_it_is_entered(client_id: str) -> None:
    """One clear reason, under the node's name; the others go on."""
    cohort = Cohort(FakeGrid({1: honest(), 2: node_answer(client_id, 3, adds(4.0))}), 1.0, poll_seconds=0.001)
    cohort.connect(wait_seconds=0.05)
    assert list(cohort.clients) == ["a"]
    [fault] = cohort.faults
    assert (fault.client_id, fault.reason.startswith("its client-id is ")) == ("node 2", True)
    assert len(fault.reason) < 180


@pytest.mark.parametrize("client_id", ["0", "17", "hospital-a", "Node_3.eu", "a" * 64])
def test_a_possible_client_id_is_taken(client_id: str) -> None:
    assert wire.client_id_fault(client_id) == ""


def test_required_metrics_of_flowers_strategies() -> None:
    options = "weighted_by_key = 'train-loss'"
    assert builtin.required_metrics(StrategySettings(name="flwr:FedAvg", options=options)) == ["train-loss"]
    assert builtin.required_metrics(StrategySettings(name="flwr:FedAvg")) == []

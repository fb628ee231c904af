"""The training loop over a grid without processes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from flwr.app import ArrayRecord, Message
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.flower import flower as builtin
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import train
from strategies.server import memory as strategy_state
from strategies.server.cohort import Cohort
from strategies.server.exclusion import Drop
from strategies.server.selection import select_clients
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.strategies.fakes import (
    Answer,
    FakeGrid,
    adds,
    flat_record,
    node_answer,
    raises,
    spoiled,
    two_clients,
)

PLAN = TrainingPlan(StrategySettings(), SelectionSettings(), rounds=3, seed=0)
FLOWERS = [
    "FedAvg",
    "FedAdam",
    "FedYogi",
    "FedAdagrad",
    "FedAvgM",
    "FedMedian",
    "FedTrimmedAvg",
    "Krum",
    "FedProx",
]


def drifts(rate: float) -> Answer:
    """Return a client whose update depends on the model: it moves towards its own optimum."""

    def step(old: Tensor, message: Message) -> Tensor:
        return old + rate * (torch.tensor([rate * 10, -rate]) - old)

    return node_answer(f"c{rate}", round(rate * 100), step)


def drifting() -> FakeGrid:
    """Return a grid of five such clients."""
    return FakeGrid({i: drifts(rate) for i, rate in enumerate((0.1, 0.2, 0.3, 0.4, 0.5), start=1)})


def run(
    grid: FakeGrid, plan: TrainingPlan = PLAN, start: Start | None = None, first: Sequence[float] = (0.0, 0.0)
) -> tuple[Tensor, list[RoundResult], list[Mapping[str, Tensor]], Cohort]:
    """Train, and return the model, the rounds, the strategy's memory after each, and the cohort."""
    cohort = Cohort(grid, 1.0, poll_seconds=0.001)
    cohort.connect(wait_seconds=0.05)
    rounds: list[RoundResult] = []
    memory: list[Mapping[str, Tensor]] = []

    def note(result: RoundResult, strategy: Strategy) -> None:
        rounds.append(result)
        memory.append({k: t.clone() for k, t in strategy_state.capture(strategy).items()})

    arrays = train(plan, cohort, start or Start(flat_record(first)), evaluate=evaluate, on_round=note)
    return wire.state_of(arrays)["w"].clone(), rounds, memory, cohort


def evaluate(arrays: ArrayRecord) -> Mapping[str, float]:
    """Return the first parameter as a metric."""
    return {"test-accuracy": float(wire.state_of(arrays)["w"][0])}


def test_worked_by_hand() -> None:
    """Two clients that add 2 and 4 with weights 1/4 and 3/4: +3.5 in each of three rounds."""
    model, rounds, _, _ = run(FakeGrid(two_clients()), first=[10.0])
    assert model.tolist() == [20.5]
    assert [r.round for r in rounds] == [1, 2, 3]
    assert [wire.state_of(r.arrays)["w"].tolist() for r in rounds] == [[13.5], [17.0], [20.5]]
    assert rounds[0].selected == rounds[0].accepted == ("a", "b")
    assert rounds[0].metrics == {wire.TRAIN_LOSS: 2.5, "test-accuracy": 13.5}
    assert rounds[0].traffic.visits == 2


def test_order_of_arrival_is_irrelevant() -> None:
    """Not a bit of the model or of the metrics changes."""
    straight, rounds, _, _ = run(drifting())
    for seed in range(4):
        shuffled = drifting()
        shuffled.shuffle = seed
        model, other, _, _ = run(shuffled)
        assert model.equal(straight)
        assert [r.metrics for r in other] == [r.metrics for r in rounds]


def test_a_bad_client_is_counted_and_named_and_the_round_goes_on() -> None:
    """Client b sends NaN in every round: a alone is averaged."""
    nodes = two_clients()
    nan = spoiled(nodes[2], lambda content: content.__setitem__(wire.ARRAYS, flat_record([float("nan")])))
    model, rounds, _, cohort = run(FakeGrid(nodes | {2: nan}), first=[10.0])
    assert model.tolist() == [16.0]
    assert [r.accepted for r in rounds] == [("a",)] * 3
    assert [(f.client_id, f.scope, f.reason) for f in cohort.faults] == [
        ("b", f"round {t}", "NaN in the parameters") for t in (1, 2, 3)
    ]
    assert [len(r.faults) for r in rounds] == [1, 1, 1]


def test_a_client_cannot_weigh_more_than_it_described() -> None:
    """The reply that claims more examples is rejected."""
    nodes = two_clients()
    liar = spoiled(nodes[2], lambda content: content[wire.METRICS].__setitem__(wire.NUM_EXAMPLES, 4))
    _, rounds, _, cohort = run(FakeGrid(nodes | {2: liar}), first=[10.0])
    assert rounds[0].accepted == ("a",)
    assert cohort.faults[0].reason == "num-examples is 4, at most 3 by what the client described"


def fails_in_training(answer: Answer) -> Answer:
    """Return a client that answers everything else."""
    return lambda message: raises(message) if message.metadata.message_type == wire.TRAIN else answer(message)


def test_a_round_without_a_valid_reply_keeps_the_model_and_says_so() -> None:
    """All clients fail in training; the run goes on to its end."""
    nodes = {i: fails_in_training(answer) for i, answer in two_clients().items()}
    model, rounds, _, cohort = run(FakeGrid(nodes), first=[10.0])
    assert model.tolist() == [10.0]
    assert len(rounds) == 3
    assert cohort.faults[-1].reason == "no usable reply: the model is kept as it was"


@pytest.mark.parametrize("name", FLOWERS)
def test_flowers_own_strategies_run_and_resume(name: str) -> None:
    """Inside the same guard; and after round 2, with their memory restored, they go on to the same bits."""
    options = "proximal_mu=0.1" if name == "FedProx" else ""
    plan = replace(PLAN, strategy=StrategySettings(name=f"flwr:{name}", options=options), rounds=4)
    whole, rounds, memory, _ = run(drifting(), plan)
    assert not whole.equal(torch.zeros(2))
    resumed, _, _, _ = run(drifting(), plan, Start(rounds[1].arrays, 2, memory[1]))
    assert resumed.equal(whole)


@pytest.mark.parametrize(
    ("name", "options", "averages"),
    [("FedAvg", "", True), ("FedAvg", "weighted_by_key='train-loss'", False), ("FedAdam", "", False)],
)
def test_only_an_average_by_examples_counts_as_one(name: str, options: str, averages: bool) -> None:
    """What was logged can be subtracted only where a round added its weighted mean."""
    built = builtin.build(StrategySettings(name=f"flwr:{name}", options=options))
    assert isinstance(built, builtin.SortedReplies)
    assert built.is_weighted_average is averages


@pytest.mark.parametrize("name", ["FedAdam", "FedAvgM"])
def test_a_strategys_memory_matters(name: str) -> None:
    """Resumed without it, these go elsewhere: the test above would notice a lost moment."""
    options = "server_momentum=0.9" if name == "FedAvgM" else ""
    plan = replace(PLAN, strategy=StrategySettings(name=f"flwr:{name}", options=options), rounds=4)
    whole, rounds, memory, _ = run(drifting(), plan)
    assert run(drifting(), plan, Start(rounds[1].arrays, 2, memory[1]))[0].equal(whole)
    assert not run(drifting(), plan, Start(rounds[1].arrays, 2))[0].equal(whole)


def test_a_run_resumes_bit_for_bit() -> None:
    """With part of the clients drawn in each round."""
    plan = replace(PLAN, selection=SelectionSettings(fraction=0.5), rounds=6)
    whole, rounds, _, _ = run(drifting(), plan)
    for done in range(1, 6):
        assert run(drifting(), plan, Start(rounds[done - 1].arrays, done))[0].equal(whole)


def test_clients_join_and_leave_between_rounds() -> None:
    """A new client takes part from the next round on; one that is gone is a fault, not the end."""
    grid = FakeGrid(two_clients())
    cohort = Cohort(grid, 1.0, poll_seconds=0.001)
    cohort.connect(wait_seconds=0.05)
    seen: list[tuple[str, ...]] = []

    def change(result: RoundResult, strategy: Strategy) -> None:
        seen.append(result.accepted)
        if result.round == 1:
            grid.answers[9] = node_answer("z", 4, adds(1.0))
        if result.round == 2:
            del grid.answers[1]

    train(PLAN, cohort, Start(flat_record([0.0])), on_round=change)
    assert [set(s) for s in seen] == [{"a", "b"}, {"a", "b", "z"}, {"b", "z"}]


def test_a_view_without_a_client_never_asks_it() -> None:
    """How a client is left out of retraining."""
    grid = FakeGrid(two_clients())
    cohort = Cohort(grid, 1.0, poll_seconds=0.001)
    cohort.connect(wait_seconds=0.05)
    arrays = train(PLAN, cohort.without(["b"]), Start(flat_record([10.0])))
    assert wire.state_of(arrays)["w"].tolist() == [16.0]
    asked = {m.metadata.dst_node_id for m in grid.sent if m.metadata.message_type == wire.TRAIN}
    assert asked == {1}


def test_instructions_to_drop_reach_the_right_clients() -> None:
    """Classes go to all, positions to the client they belong to."""
    grid = FakeGrid(two_clients())
    plan = replace(PLAN, rounds=1, drop=Drop(classes=(7,), indices={"b": (0, 4)}))
    run(grid, plan, first=[0.0])
    told = {
        m.metadata.dst_node_id: dict(m.content.config_records[wire.CONFIG])
        for m in grid.sent
        if m.metadata.message_type == wire.TRAIN
    }
    shared = {wire.SERVER_ROUND: 1, wire.ROUNDS: 1, wire.DROP_CLASSES: [7]}
    assert told[1] == shared
    assert told[2] == {**shared, wire.DROP_INDICES: [0, 4]}


def test_a_schedule_lasts_as_long_as_was_planned() -> None:
    """Four rounds are kept of ten: those are the first of ten, also when more are trained after them."""
    assert replace(PLAN, rounds=4).schedule_length == 4
    kept = replace(PLAN, rounds=4, horizon=10)
    assert (kept.schedule_length, kept.going_on(3).schedule_length, kept.going_on(9).schedule_length) == (
        10,
    ) * 3
    further = replace(PLAN, rounds=4).going_on(3)
    assert (further.rounds, further.schedule_length) == (7, 4)
    grid = FakeGrid(two_clients())
    run(grid, replace(PLAN, rounds=1, horizon=10), first=[0.0])
    trained = [m for m in grid.sent if m.metadata.message_type == wire.TRAIN]
    assert [m.content.config_records[wire.CONFIG][wire.ROUNDS] for m in trained] == [10, 10]


def test_evaluation_keeps_to_its_rounds() -> None:
    """Every second round and the last; on the clients, too, if asked for."""
    plan = replace(PLAN, rounds=5, evaluate_every=2, federated_evaluation=True, local_test_share=0.5)
    _, rounds, _, _ = run(FakeGrid(two_clients()), plan, first=[0.0])
    assert [("test-accuracy" in r.metrics, "client-accuracy" in r.metrics) for r in rounds] == [
        (False, False),
        (True, True),
        (False, False),
        (True, True),
        (True, True),
    ]
    assert rounds[1].metrics["client-accuracy"] == 50.0


def test_selection_is_a_function_of_seed_and_round() -> None:
    """Drawn without replacement, sorted, never fewer than asked for."""
    clients = [str(i) for i in range(20)]
    half = SelectionSettings(fraction=0.5)
    first = select_clients(clients, half, 0, 1)
    assert first == select_clients(reversed(clients), half, 0, 1)
    assert len(set(first)) == 10
    assert first == sorted(first, key=int)
    assert first != select_clients(clients, half, 0, 2)
    assert first != select_clients(clients, half, 1, 1)
    assert len(select_clients(clients, SelectionSettings(fraction=0.01, min_clients=3), 0, 1)) == 3
    assert select_clients(clients, SelectionSettings(), 0, 1) == clients


def test_every_client_is_drawn_about_as_often() -> None:
    """2,000 rounds of 5 of 20: each about 500 times; 5 standard deviations are 97."""
    counts = dict.fromkeys(map(str, range(20)), 0)
    for server_round in range(2000):
        for client in select_clients(counts, SelectionSettings(fraction=0.25), 0, server_round):
            counts[client] += 1
    assert all(403 < count < 597 for count in counts.values())


def test_too_few_clients_end_the_run() -> None:
    """With both numbers in the message."""
    plan = replace(PLAN, selection=SelectionSettings(min_clients=3))
    with pytest.raises(LetheError, match=r"2 clients are connected, selection\.min-clients is 3"):
        run(FakeGrid(two_clients()), plan, first=[0.0])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("flwr:FedNope", "", "Flower has Bulyan, FedAdagrad"),
        ("flwr:FedXgbBagging", "", "Flower has Bulyan"),
        ("flwr:DifferentialPrivacyServerSideFixedClipping", "", "Flower has Bulyan"),
        ("flwr:FedAdam", "nope=1", "FedAdam has no 'nope'; it takes"),
        ("flwr:FedAdam", "fraction_train=0.5", r"decided by selection\.fraction"),
        ("fedsgd", "", "known are coded-gd, .*, fedavg, .*, pruned-dp"),
    ],
)
def test_strategies_that_cannot_be_built(name: str, options: str, message: str) -> None:
    """Each is bad input that says what there is."""
    plan = replace(PLAN, strategy=StrategySettings(name=name, options=options))
    with pytest.raises(BadInput, match=message):
        run(drifting(), plan)

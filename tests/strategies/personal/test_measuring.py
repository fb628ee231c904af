"""strategies/personal/measuring.py: accuracies before and after personalisation, by client and together."""

import math

import pytest
import torch
from flwr.app import ConfigRecord, Message
from hypothesis import given, strategies as st
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.client.training import ClientJob
from strategies.core import wire
from strategies.core.examples import TensorExamples
from strategies.core.seeds import torch_generator
from strategies.fedavg import FedAvg
from strategies.personal import measuring as personal
from strategies.personal.measuring import (
    GLOBAL,
    PERSONAL,
    MeasuredStrategy,
    figures,
    group_shares,
    weighted_score,
    worst,
)
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import train
from strategies.server.cohort import Cohort
from strategies.server.grids import CohortGrid
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from strategies.task import CLASSIFICATION
from tests.strategies.fakes import Answer, FakeGrid, adds, flat_record, node_answer


def scores(labels: list[int], y: Tensor) -> Tensor:
    """Return the scores of a model that predicts some labels."""
    return CLASSIFICATION.scores(torch.eye(3)[torch.tensor(labels)], y)


def shares_of(y: Tensor) -> Tensor:
    return group_shares(TensorExamples(torch.zeros(len(y), 1), y), 3)


# by hand


def test_score_at_the_shares_of_a_client() -> None:
    """Class 0: 1 of 2 right; class 1: 1 of 1. Shares 0.8 and 0.2: 0.8 · 50 + 0.2 · 100 = 60."""
    y = torch.tensor([0, 0, 1, 2])
    shares = torch.tensor([0.8, 0.2, 0.0])
    assert weighted_score(scores([0, 1, 1, 0], y), y, shares) == pytest.approx(60.0)
    assert weighted_score(scores([0, 1, 1, 0], y), y, None) == 50.0


def test_a_class_without_test_data_is_left_out() -> None:
    """Share 0.5 is of class 2, of which there is no test example: class 0 alone counts."""
    y, shares = torch.tensor([0, 0]), torch.tensor([0.5, 0.0, 0.5])
    assert weighted_score(scores([0, 1], y), y, shares) == pytest.approx(50.0)
    assert weighted_score(scores([0, 1], y), y, torch.tensor([0.0, 0.0, 1.0])) is None


def test_shares_of_the_classes() -> None:
    assert shares_of(torch.tensor([2, 0, 2, 2])).tolist() == [0.25, 0.0, 0.75]


# properties


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_the_worst_tenth_lies_between_the_lowest_and_the_mean(values: list[float]) -> None:
    assert min(values) - 1e-9 <= worst(values) <= sum(values) / len(values) + 1e-9


@given(st.lists(st.integers(0, 2), min_size=3, max_size=30), st.integers(0, 99))
def test_shares_of_the_test_data_give_the_plain_accuracy(labels: list[int], seed: int) -> None:
    y = torch.tensor(labels)
    found = CLASSIFICATION.scores(torch.randn(len(y), 3, generator=torch_generator(seed)), y)
    assert weighted_score(found, y, shares_of(y)) == pytest.approx(weighted_score(found, y, None))


# a client


def job(test_rate: float = 0.0) -> ClientJob:
    model = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(3))
    own = TensorExamples(torch.eye(3)[:2], torch.tensor([1, 1]))
    return ClientJob(model, own, TrainSettings(), StrategySettings(), "0", 1, torch_generator(0))


def swapped(given: ClientJob) -> nn.Module:
    """Return the model with its outputs 0 and 1 exchanged, in place."""
    with torch.no_grad():
        given.model.weight.copy_(torch.eye(3)[[1, 0, 2]])
    return given.model


def test_before_is_measured_before_the_model_changes_in_place() -> None:
    """The client has class 1 alone; input e_0 with label 1 is right only after the swap."""
    test = TensorExamples(torch.eye(3), torch.tensor([1, 0, 2]))
    numbers = personal.measure(job(), swapped, test, 3, own_test=False)
    assert numbers == {wire.NUM_EXAMPLES: 2, GLOBAL: 0.0, PERSONAL: 100.0}
    numbers = personal.measure(job(), swapped, test, 3, own_test=True)
    assert numbers[GLOBAL] == pytest.approx(100 / 3)


def test_without_test_data_nothing_is_measured() -> None:
    assert personal.measure(job(), swapped, None, 3, own_test=True) == {wire.NUM_EXAMPLES: 2}


# the server


def measuring(client_id: str, before: float, after: float) -> Answer:
    plain = node_answer(client_id, 10, adds(1.0))

    def answer(message: Message) -> Message | None:
        if message.metadata.message_type != personal.MESSAGE:
            return plain(message)
        numbers = {wire.NUM_EXAMPLES: 10, GLOBAL: before, PERSONAL: after}
        return wire.reply_to(message, client_id, numbers)

    return answer


def run(*answers: Answer, evaluate_every: int = 1) -> list[RoundResult]:
    grid = FakeGrid(dict(enumerate(answers, start=1)))
    cohort = Cohort(grid, timeout=1.0)
    cohort.connect(len(answers))
    plan = TrainingPlan(StrategySettings(name="ditto"), SelectionSettings(), 3, 0, evaluate_every)
    results: list[RoundResult] = []
    arrays = train(
        plan,
        cohort,
        Start(flat_record([0.0])),
        on_round=lambda result, _: results.append(result),
    )
    assert wire.state_of(arrays)["w"].tolist() == [3.0]
    return results


def test_a_round_reports_mean_and_worst() -> None:
    results = run(measuring("a", 50.0, 90.0), measuring("b", 70.0, 80.0))
    assert results[-1].metrics.items() >= figures(results[-1].clients.values()).items()
    assert results[-1].metrics["global-worst"] == 50.0
    assert results[-1].metrics["personal-worst"] == 80.0
    assert results[-1].clients["a"] == {GLOBAL: 50.0, PERSONAL: 90.0}


def test_rounds_that_are_not_evaluated_ask_nothing() -> None:
    results = run(measuring("a", 50.0, 90.0), evaluate_every=2)
    assert [bool(result.clients) for result in results] == [False, True, True]


@pytest.mark.parametrize("told", [math.nan, -1.0, 101.0])
def test_accuracies_that_are_none_are_rejected_and_named(told: float) -> None:
    results = run(measuring("a", 50.0, 90.0), measuring("b", told, 80.0))
    assert list(results[0].clients) == ["a"]
    assert [(f.client_id, f.reason) for f in results[0].faults] == [
        ("b", f"reports {GLOBAL} is {told:.6g}: not used")
    ]


def test_nobody_who_can_measure_gives_no_figures() -> None:
    assert figures([]) == {}
    assert figures([{GLOBAL: 1.0}]) == {}


def test_the_message_goes_to_whom_the_grid_lists() -> None:
    grid = FakeGrid({1: measuring("a", 1.0, 2.0), 2: measuring("b", 1.0, 2.0)})
    cohort = Cohort(grid)
    cohort.connect(2)
    only_b = CohortGrid(grid, {"b": cohort.clients["b"]})
    strategy = MeasuredStrategy(FedAvg())
    config = ConfigRecord({wire.MEASURE: True})
    messages = list(strategy.configure_return(1, flat_record([0.0]), config, only_b))
    assert [message.metadata.dst_node_id for message in messages] == [2]

"""Federated averaging."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message
from flwr.serverapp import strategy as flower
from hypothesis import given, settings, strategies as st

from strategies.core import wire
from strategies.fedavg import FedAvg, average_metrics
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


def replies_to(strategy: flower.Strategy, grid: FakeGrid, start: list[float]) -> list[Message]:
    """Return the replies of a grid's nodes to a strategy's round."""
    messages = strategy.configure_train(1, flat_record(start), ConfigRecord(), grid)
    return list(grid.send_and_receive(messages))


def test_worked_by_hand() -> None:
    """From 10: a (1 example) adds 2, b (3) adds 4; 10 + (1·2 + 3·4)/4 = 13.5; loss (1·1 + 3·3)/4."""
    strategy, grid = FedAvg(), FakeGrid(two_clients())
    arrays, metrics = strategy.aggregate_train(1, replies_to(strategy, grid, [10.0]))
    assert arrays is not None
    assert metrics is not None
    assert wire.state_of(arrays)["w"].tolist() == [13.5]
    assert metrics[wire.TRAIN_LOSS] == 2.5


vectors = st.lists(st.floats(-8, 8, width=32), min_size=6, max_size=6)
cohorts = st.lists(st.tuples(st.integers(1, 500), vectors), min_size=1, max_size=6)


def nodes_of(cohort: list[tuple[int, list[float]]]) -> dict[int, Answer]:
    """Return one node per (examples, step)."""
    return {
        i: node_answer(str(i), n, lambda old, message, s=step: old + torch.tensor(s))
        for i, (n, step) in enumerate(cohort, start=1)
    }


@settings(max_examples=40, deadline=None)
@given(cohort=cohorts, start=vectors)
def test_equals_numpy_and_flowers_own_on_the_same_replies(
    cohort: list[tuple[int, list[float]]], start: list[float]
) -> None:
    """Σ n·w / Σ n in float64, and Flower's FedAvg."""
    ours, grid = FedAvg(), FakeGrid(nodes_of(cohort))
    replies = replies_to(ours, grid, start)
    arrays, _ = ours.aggregate_train(1, replies)
    theirs, _ = flower.FedAvg(min_available_nodes=1).aggregate_train(1, replies)
    assert arrays is not None
    assert theirs is not None
    weights = np.array([n for n, _ in cohort], dtype=np.float64)
    models = np.array([np.float32(start) + np.float32(step) for _, step in cohort], dtype=np.float64)
    expected = weights @ models / weights.sum()
    np.testing.assert_allclose(arrays["w"].numpy(), expected, atol=2e-6)
    np.testing.assert_allclose(arrays["w"].numpy(), theirs["w"].numpy(), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(cohort=cohorts, data=st.data())
def test_order_of_replies_does_not_change_a_bit(
    cohort: list[tuple[int, list[float]]], data: st.DataObject
) -> None:
    """Any permutation gives the same bytes, of the model and of the metrics."""
    strategy, grid = FedAvg(), FakeGrid(nodes_of(cohort))
    replies = replies_to(strategy, grid, [0.1] * 6)
    shuffled = data.draw(st.permutations(replies))
    results = [strategy.aggregate_train(1, order) for order in (replies, shuffled)]
    (first, first_metrics), (second, second_metrics) = results
    assert first is not None
    assert second is not None
    assert first["w"].numpy().tobytes() == second["w"].numpy().tobytes()
    assert first_metrics == second_metrics


def test_only_those_who_answered_count() -> None:
    """With b failing, the average is a's model alone: 10 + 2, not divided by the number of nodes."""
    strategy, grid = FedAvg(), FakeGrid(two_clients() | {2: raises})
    arrays, _ = strategy.aggregate_train(1, replies_to(strategy, grid, [10.0]))
    assert arrays is not None
    assert wire.state_of(arrays)["w"].tolist() == [12.0]


def test_no_usable_reply() -> None:
    """There is nothing to average."""
    strategy, grid = FedAvg(), FakeGrid({1: raises, 2: raises})
    assert strategy.aggregate_train(1, replies_to(strategy, grid, [10.0])) == (None, None)


def test_an_impossible_number_of_examples_is_left_out() -> None:
    """A client that claims more than any can have does not end the round."""
    nodes = two_clients()
    liar = spoiled(nodes[2], lambda content: content[wire.METRICS].__setitem__(wire.NUM_EXAMPLES, 2**31 + 1))
    strategy, grid = FedAvg(), FakeGrid(nodes | {2: liar})
    arrays, _ = strategy.aggregate_train(1, replies_to(strategy, grid, [10.0]))
    assert arrays is not None
    assert wire.state_of(arrays)["w"].tolist() == [12.0]


def test_the_largest_claim_costs_the_others_no_digit() -> None:
    """Beside a client of 2^31 examples that stays at 0, one of 10 moves by 10·1e-5 / (2^31 + 10)."""
    nodes = {1: node_answer("a", 10, adds(1e-5)), 2: node_answer("b", 2**31, adds(0.0))}
    strategy, grid = FedAvg(), FakeGrid(nodes)
    arrays, _ = strategy.aggregate_train(1, replies_to(strategy, grid, [0.0]))
    assert arrays is not None
    moved = float(wire.state_of(arrays)["w"])
    assert moved == pytest.approx(10 * float(np.float32(1e-5)) / (2**31 + 10), rel=1e-7)


def test_replies_are_consumed_one_by_one() -> None:
    """No reply is asked for before the one before it was added: the server's memory does not grow."""
    strategy, grid = FedAvg(), FakeGrid(two_clients())
    replies = replies_to(strategy, grid, [0.0])
    alive: list[int] = []

    def stream() -> Iterator[Message]:
        while replies:
            yield replies.pop(0)
            alive.append(len(replies))

    strategy.aggregate_train(1, stream())
    assert alive == [1, 0]


def test_every_node_of_the_grid_gets_the_same_records() -> None:
    """The model is in memory once, and the round is in the config."""
    strategy, grid = FedAvg(), FakeGrid(two_clients())
    messages = list(strategy.configure_train(7, flat_record([0.0]), ConfigRecord({"x": 1}), grid))
    assert messages[0].content is messages[1].content
    assert dict(messages[0].content.config_records[wire.CONFIG]) == {"x": 1, wire.SERVER_ROUND: 7}
    assert [m.metadata.dst_node_id for m in messages] == [1, 2]


def test_evaluation_is_averaged_over_examples() -> None:
    """(1·50 + 3·50)/4, and None when nobody answered."""
    strategy, grid = FedAvg(), FakeGrid(two_clients())
    messages = strategy.configure_evaluate(1, flat_record([0.0]), ConfigRecord(), grid)
    metrics = strategy.aggregate_evaluate(1, grid.send_and_receive(messages))
    assert metrics == {wire.ACCURACY: 50.0}
    assert average_metrics([]) is None


def test_aggregating_before_a_round_was_configured() -> None:
    """A mistake in the caller is an error, not a wrong model."""
    with pytest.raises(RuntimeError, match="before configure_train"):
        FedAvg().aggregate_train(1, [])

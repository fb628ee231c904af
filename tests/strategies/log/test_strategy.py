"""The wrapper that logs what the wrapped strategy aggregates."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy
from flwr.supercore.task_identity import TaskIdentity

from strategies.core import wire
from strategies.core.seeds import torch_generator
from strategies.fedavg import FedAvg
from strategies.flower.flower import build
from strategies.log.strategy import LoggedStrategy
from strategies.log.update_log import UpdateLog
from strategies.server.guard import GuardedStrategy
from strategies.server.wrapper import StrategyWrapper
from strategies.settings import StrategySettings
from tests.strategies.update_logs import ONE, one


class Nodes:
    """Stands in for a grid: two nodes."""

    def get_node_ids(self) -> Iterable[int]:
        return [1, 2]


class Failing(StrategyWrapper):
    """Reads all replies, then gives up or fails."""

    def __init__(self, inner: Strategy, error: Exception | None = None) -> None:
        super().__init__(inner)
        self._error = error

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        list(replies)
        if self._error is not None:
            raise self._error
        return None, None


def reply(node_id: int, client_id: str, value: float, examples: int) -> Message:
    """Return a client's answer: its new parameter."""
    message = Message(RecordDict(), node_id, wire.TRAIN)
    return wire.reply_to(
        message, client_id, {wire.NUM_EXAMPLES: examples, "loss": 0.5}, wire.record_of({"w": one(value)})
    )


def replies() -> list[Message]:
    """Return what two clients that were sent w = 10 answer: δ = 2 of 1 example, δ = 4 of 3 examples."""
    return [reply(1, "a", 12.0, 1), reply(2, "b", 14.0, 3)]


def run_round(strategy: Strategy, number: int, answers: Iterable[Message]) -> ArrayRecord | None:
    """Return the model after one round from w = 10."""
    sent = wire.record_of({"w": one(10.0)})
    list(strategy.configure_train(number, sent, ConfigRecord({}), Nodes()))  # type: ignore[arg-type]
    return strategy.aggregate_train(number, answers)[0]


def guarded(inner: Strategy, log: UpdateLog) -> Strategy:
    """Return the strategy as the training loop wraps it."""
    return GuardedStrategy(LoggedStrategy(inner, log), lambda message, reason: None)


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give Flower's messages a run to belong to."""
    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[UpdateLog]:
    """Return an empty log of a one-parameter model."""
    with UpdateLog.create(tmp_path / "log", ONE) as log:
        yield log


def flower_average() -> Strategy:
    """Return Flower's FedAvg for two nodes."""
    return build(StrategySettings(name="flwr:FedAvg"))


@pytest.mark.parametrize("own", [True, False])
def test_two_clients_one_parameter_worked_by_hand(log: UpdateLog, own: bool) -> None:
    """w = 10 + 2·1/4 + 4·3/4 = 13.5, and the log says exactly that."""
    strategy = guarded(FedAvg() if own else flower_average(), log)
    arrays = run_round(strategy, 1, replies())
    assert arrays is not None
    assert wire.state_of(arrays)["w"].tolist() == [13.5]
    found = [(e.client_id, e.num_examples, e.weight, e.norm) for e in log.entries(1)]
    assert found == [("a", 1, 0.25, 2.0), ("b", 3, 0.75, 4.0)]
    assert [log.delta(1, c).tolist() for c in "ab"] == [[2.0], [4.0]]
    assert log.averaging_rounds() == [1]


def test_the_logged_sum_is_the_step_of_the_model(log: UpdateLog) -> None:
    strategy = guarded(FedAvg(), log)
    generator = torch_generator(0, "values")
    for number in range(1, 4):
        values = torch.randn(2, generator=generator).tolist()
        arrays = run_round(strategy, number, [reply(1, "a", values[0], 7), reply(2, "b", values[1], 13)])
        assert arrays is not None
        step = sum(e.weight * log.delta(number, e.client_id).double() for e in log.entries(number))
        assert wire.state_of(arrays)["w"].item() == pytest.approx(10.0 + float(step), rel=1e-6)


def test_rejected_replies_are_not_logged(log: UpdateLog) -> None:
    run_round(guarded(FedAvg(), log), 1, [*replies(), reply(3, "c", float("nan"), 5)])
    assert log.clients() == ["a", "b"]


def test_updates_are_logged_one_at_a_time(log: UpdateLog) -> None:
    """The second reply is asked for only after the first was added: a stream stays a stream."""
    strategy, added = LoggedStrategy(FedAvg(), log), []
    original = log.add

    def add(*args: object) -> None:
        added.append(args[1])
        original(*args)  # type: ignore[arg-type]

    log.add = add  # type: ignore[method-assign,assignment]

    def stream() -> Iterator[Message]:
        for number, message in enumerate(replies()):
            assert len(added) == number
            yield message

    run_round(GuardedStrategy(strategy, lambda message, reason: None), 1, stream())
    assert added == ["a", "b"]


@pytest.mark.parametrize(("described", "expected"), [({1: 1, 2: 3}, 4), ({1: 1}, None), (None, None)])
def test_the_examples_of_those_who_are_asked_are_expected(
    log: UpdateLog, monkeypatch: pytest.MonkeyPatch, described: dict[int, int] | None, expected: int | None
) -> None:
    begun = []
    monkeypatch.setattr(log, "begin_round", lambda *args: begun.append(args[:2]))
    sent = wire.record_of({"w": one(10.0)})
    strategy = LoggedStrategy(FedAvg(), log, described)
    messages = list(strategy.configure_train(3, sent, ConfigRecord({}), Nodes()))  # type: ignore[arg-type]
    strategy.aggregate_train(3, [])
    assert ([m.metadata.dst_node_id for m in messages], begun) == ([1, 2], [(3, expected)])


def test_a_round_without_a_model_is_not_in_the_log(log: UpdateLog) -> None:
    assert run_round(guarded(Failing(FedAvg()), log), 1, replies()) is None
    assert run_round(guarded(FedAvg(), log), 2, []) is None
    assert (log.rounds(), log.verify(), list(log.path.rglob("*.safetensors"))) == ([], {}, [])
    assert run_round(guarded(FedAvg(), log), 3, replies()) is not None
    assert log.rounds() == [3]


def test_a_round_that_failed_is_not_in_the_log(log: UpdateLog) -> None:
    with pytest.raises(ZeroDivisionError):
        run_round(guarded(Failing(FedAvg(), ZeroDivisionError()), log), 1, replies())
    assert log.rounds() == []
    assert run_round(guarded(FedAvg(), log), 1, replies()) is not None


@pytest.mark.parametrize(
    ("inner", "averages"),
    [
        (FedAvg(), True),
        (flower_average(), True),
        (build(StrategySettings(name="flwr:FedProx", options="proximal-mu = 0.1")), True),
        (build(StrategySettings(name="flwr:FedAvg", options="weighted-by-key = 'loss'")), False),
        (build(StrategySettings(name="flwr:FedAvgM")), False),
        (flower.FedAvg(), False),
        (Failing(FedAvg()), True),
    ],
)
def test_only_weighted_averages_are_marked(log: UpdateLog, inner: Strategy, averages: bool) -> None:
    assert LoggedStrategy(inner, log).is_weighted_average is averages


def test_the_mark_reaches_the_log(log: UpdateLog) -> None:
    run_round(guarded(flower.FedMedian(min_train_nodes=1, min_available_nodes=1), log), 1, replies())
    assert (log.rounds(), log.averaging_rounds()) == ([1], [])


def test_unchecked_replies_are_refused(log: UpdateLog) -> None:
    strategy = LoggedStrategy(flower_average(), log)
    with pytest.raises(RuntimeError, match="put LoggedStrategy inside GuardedStrategy"):
        run_round(strategy, 1, replies())
    assert log.rounds() == []

"""FedMD over a grid without processes: the rounds, the log, the guard, and what travels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from flwr.common.serde import message_to_proto
from torch import Tensor

from strategies.algorithm import Holdings, ServerSide
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.seeds import torch_generator
from strategies.fedavg import FedAvg
from strategies.fedmd import client
from strategies.fedmd.consensus import confidence_consensus, variance_consensus
from strategies.fedmd.privacy import count_answer, epsilon
from strategies.fedmd.server import RepeatedAnswers, initial_state, means
from strategies.log.strategy import LoggedStrategy
from strategies.log.update_log import UpdateLog
from strategies.plan import RoundResult, Start
from strategies.registry import lookup
from strategies.rounds import train
from strategies.settings import StrategySettings
from tests.strategies.fakes import FakeGrid, spoiled
from tests.strategies.fedmd.world import (
    CLASSES,
    PUBLIC,
    SMALL,
    Client,
    away,
    blobs,
    clients_of,
    connected,
    plan_of,
    server_half,
)

SETTINGS = StrategySettings(**SMALL)


def start(settings: StrategySettings = SETTINGS) -> Start:
    return Start(wire.record_of(initial_state(settings, len(PUBLIC), CLASSES)))


def trained(
    clients: list[Client], rounds: int = 2, shuffle: int | None = None, **more: Any
) -> tuple[Tensor, list[RoundResult]]:
    results: list[RoundResult] = []
    plan = plan_of(clients[0].settings, rounds)
    arrays = train(
        plan,
        connected(clients, shuffle),
        start(clients[0].settings),
        on_round=lambda result, _: results.append(result),
        **more,
    )
    return wire.state_of(arrays)[client.LOGITS], results


def logits_of(message: Message) -> Tensor:
    return wire.state_of(message.content.array_records[wire.ARRAYS])[client.LOGITS]


# the rounds


def test_the_consensus_is_the_mean_of_the_answers() -> None:
    clients = clients_of(SETTINGS)
    consensus, results = trained(clients, rounds=1)
    answers = [logits_of(c.sent[1] if c.sent[0].content.array_records == {} else c.sent[0]) for c in clients]
    torch.testing.assert_close(consensus, torch.stack(answers).mean(dim=0))
    assert results[0].accepted == ("0", "1", "2")


@pytest.mark.parametrize(
    ("name", "rule"), [("confidence", confidence_consensus), ("variance", variance_consensus)]
)
def test_a_rule_is_chosen_by_its_name(name: str, rule: Callable[[dict[str, Tensor]], Tensor]) -> None:
    drawn = torch_generator(4)
    logits = {str(i): torch.randn(5, CLASSES, generator=drawn) for i in range(3)}
    strategy = server_half(plan_of(SETTINGS.model_copy(update={"consensus": name})))
    assert torch.equal(strategy.consensus(logits), rule(logits))


def test_clients_with_a_handful_of_examples_learn_from_each_other() -> None:
    changed = {"public_epochs": 0, "private_epochs": 40, "digest_epochs": 20, "alignment": 60}
    settings = SETTINGS.model_copy(update=changed)
    clients = [Client(str(i), 6 + i, blobs(6, 40 + i), settings) for i in range(5)]
    _, results = trained(clients, rounds=2)
    metrics = results[-1].metrics
    assert metrics["collaboration-gain"] > 8
    accuracy = [figures["accuracy"] for figures in results[-1].clients.values()]
    assert metrics["test-accuracy"] == pytest.approx(sum(accuracy) / 5)


def test_any_order_of_replies_gives_the_same_bits() -> None:
    first, _ = trained(clients_of(SETTINGS))
    second, _ = trained(clients_of(SETTINGS), shuffle=3)
    assert torch.equal(first, second)


def test_a_kill_between_two_rounds_changes_nothing() -> None:
    whole, _ = trained(clients_of(SETTINGS), rounds=3)
    clients, results = clients_of(SETTINGS), []

    def killed(result: RoundResult, _: object) -> None:
        results.append(result)
        if result.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan_of(SETTINGS, 3), connected(clients), start(), on_round=killed)
    rest = Start(results[-1].arrays, completed_rounds=2)
    arrays = train(plan_of(SETTINGS, 3), connected(clients), rest)
    assert torch.equal(wire.state_of(arrays)[client.LOGITS], whole)


def test_a_client_that_drops_out_for_three_rounds_comes_back_with_its_own_state() -> None:
    clients = clients_of(SETTINGS)
    during: dict[int, Tensor] = {}
    answers = [clients[0], away(clients[1], lambda r: 2 <= r <= 4), clients[2]]
    results: list[RoundResult] = []

    def note(result: RoundResult, _: object) -> None:
        results.append(result)
        during[result.round] = clients[1].flat

    train(plan_of(SETTINGS, 5), connected(answers), start(), on_round=note)
    assert torch.equal(during[1], during[4])
    assert not torch.equal(during[4], during[5])
    assert results[2].accepted == ("0", "2")
    assert set(results[2].clients) == {"0", "2"}
    assert {fault.client_id for fault in results[2].faults} == {"1"}
    assert list(results[4].clients) == ["0", "1", "2"]
    assert "clients-made-anew" not in results[4].metrics
    asked = [m.content.metric_records[wire.METRICS] for m in clients[1].sent[1:]]
    assert all(client.ANEW not in metrics for metrics in asked)


def test_a_client_that_lost_its_state_is_counted() -> None:
    clients, results = clients_of(SETTINGS), []

    def lose(result: RoundResult, _: object) -> None:
        results.append(result)
        if result.round == 1:
            clients[1].state.clear()

    train(plan_of(SETTINGS, 2), connected(clients), start(), on_round=lose)
    assert [r.metrics.get("clients-made-anew", 0) for r in results] == [0, 1]


# what travels


def test_no_model_leaves_its_client() -> None:
    """In no message, either way, do four neighbouring weights of any client's model stand."""
    clients = clients_of(SETTINGS)
    cohort = connected(clients)
    seen: list[bytes] = []
    train(plan_of(SETTINGS), cohort, start(), on_round=lambda *_: seen.extend(_weights(clients)))
    grid = cohort.grid
    assert isinstance(grid, FakeGrid)
    messages = grid.sent + [reply for c in clients for reply in c.sent]
    travelled = [message_to_proto(message).SerializeToString() for message in messages]
    assert len(travelled) == 2 * (3 + 3 * 2 * 2) - 3
    assert not any(piece in content for piece in seen for content in travelled)
    state = b"".join(a.data for c in clients for r in c.state.array_records.values() for a in r.values())
    assert all(piece in state for piece in _weights(clients))  # the search would find them


def _weights(clients: list[Client]) -> list[bytes]:
    """Return runs of four weights of every client's model, as bytes."""
    return [c.flat[i : i + 4].numpy().tobytes() for c in clients for i in range(0, len(c.flat) - 3, 4)]


def test_upload_is_the_logits_and_at_most_two_percent() -> None:
    """3000 public examples, 3 classes: 36 000 bytes a client and round, however large its model is."""
    clients = [Client(str(i), 40 * (i + 1), blobs(10, i), SETTINGS) for i in range(3)]
    settings = SETTINGS.model_copy(update={"alignment": 60})
    for c in clients:
        c.settings = settings
    _, results = trained(clients, rounds=2)
    overhead = results[1].traffic.bytes_up / 3 - 60 * CLASSES * 4
    assert 0 < overhead <= 0.02 * 3000 * CLASSES * 4


def test_only_positions_of_public_examples_go_down_with_the_question() -> None:
    clients = clients_of(SETTINGS)
    cohort = connected(clients)
    train(plan_of(SETTINGS, 1), cohort, start())
    assert isinstance(cohort.grid, FakeGrid)
    questions = [m for m in cohort.grid.sent if m.metadata.message_type == client.QUERY]
    assert all(not m.content.array_records for m in questions)
    positions = [m.content.config_records[wire.CONFIG][client.ALIGNMENT] for m in questions]
    assert all(p == server_half(plan_of(SETTINGS, 1)).alignment(1).tolist() for p in positions)


# the log and the guard


def test_the_log_keeps_the_answers_themselves(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"consensus": "weighted", "weights": "1=0.25"})
    clients = clients_of(settings)
    layout = wire.layout_of(start(settings).arrays)
    with UpdateLog.create(tmp_path / "log", layout) as log:
        consensus, _ = trained(clients, rounds=2, layer=lambda inner: LoggedStrategy(inner, log))
        entries = {entry.client_id: entry for entry in log.entries(2)}
        logged = {i: log.delta(2, i).view(-1, CLASSES) for i in entries}
        assert log.averaging_rounds() == []
    answers = {c.client_id: logits_of(c.sent[-2]) for c in clients}
    assert all(torch.equal(logged[i], answers[i]) for i in answers)
    assert [entries[i].weight for i in "012"] == pytest.approx([4 / 9, 1 / 9, 4 / 9])
    torch.testing.assert_close(consensus, (answers["0"] + 0.25 * answers["1"] + answers["2"]) / 2.25)


def test_an_answer_that_is_not_finite_is_rejected_and_the_round_goes_on() -> None:
    clients = clients_of(SETTINGS)

    def spoil(content: Any) -> None:
        values = torch.full((30, CLASSES), float("nan"))
        content[wire.ARRAYS] = wire.record_of({client.LOGITS: values})

    cohort = connected([clients[0], spoiled(clients[1], spoil, client.QUERY), clients[2]])
    results: list[RoundResult] = []
    train(plan_of(SETTINGS, 1), cohort, start(), on_round=lambda r, _: results.append(r))
    assert results[0].accepted == ("0", "2")
    assert [(f.client_id, f.reason) for f in results[0].faults] == [("1", "NaN in the parameters")]


def test_an_answer_to_other_examples_is_rejected() -> None:
    clients = clients_of(SETTINGS)

    def spoil(content: Any) -> None:
        content[wire.ARRAYS] = wire.record_of({client.LOGITS: torch.zeros(29, CLASSES)})

    cohort = connected([clients[0], spoiled(clients[1], spoil, client.QUERY), clients[2]])
    results: list[RoundResult] = []
    train(plan_of(SETTINGS, 1), cohort, start(), on_round=lambda r, _: results.append(r))
    assert "wrong shape" in results[0].faults[0].reason


def test_figures_that_are_not_finite_are_a_fault() -> None:
    clients = clients_of(SETTINGS)

    def spoil(content: Any) -> None:
        content.metric_records[wire.METRICS][wire.TRAIN_LOSS] = float("nan")

    cohort = connected([clients[0], spoiled(clients[1], spoil, client.DIGEST)])
    results: list[RoundResult] = []
    train(plan_of(SETTINGS, 1), cohort, start(), on_round=lambda r, _: results.append(r))
    assert list(results[0].clients) == ["0"]
    assert results[0].faults[0].reason == "reports train-loss is nan: not used"


# figures


def test_figures_by_hand() -> None:
    """The third client was not measured, and counts in no mean."""
    clients = [
        {"accuracy": 70.0, "baseline-accuracy": 50.0, "upper-bound": 80.0, "train-loss": 1.0},
        {"accuracy": 60.0, "baseline-accuracy": 58.0, "upper-bound": 70.0, "train-loss": 2.0},
        {"train-loss": 6.0},
    ]
    assert means(clients) == {
        "train-loss": 3.0,
        "test-accuracy": 65.0,
        "baseline-accuracy": 54.0,
        "upper-bound": 75.0,
        "collaboration-gain": 11.0,
    }


def test_epsilon_is_stated_per_round_and_composed() -> None:
    settings = SETTINGS.model_copy(update={"logit_clip": 1.0, "logit_noise": 50.0})
    _, results = trained(clients_of(settings), rounds=3)
    first, last = results[0].metrics, results[2].metrics
    assert first["epsilon"] == first["epsilon-round"] == last["epsilon-round"]
    assert last["epsilon"] > last["epsilon-round"]


def test_the_largest_reported_epsilon_is_stated() -> None:
    """Client 1 has answered twice before, of which the server knows nothing."""
    settings = SETTINGS.model_copy(update={"logit_clip": 1.0, "logit_noise": 50.0})
    clients = clients_of(settings)
    for _ in range(2):
        count_answer(clients[1].state, 50.0, 30)
    _, results = trained(clients, rounds=2)
    assert results[1].metrics["epsilon"] == pytest.approx(epsilon(50.0, 30, 4, settings.logit_delta))


def test_interrupted_rounds_are_counted_though_no_client_knows_of_them() -> None:
    """Two rounds were asked and lost with the clients' states; the third and fourth answers are these."""
    settings = SETTINGS.model_copy(update={"logit_clip": 1.0, "logit_noise": 50.0})
    results: list[RoundResult] = []
    train(
        plan_of(settings, 2),
        connected(clients_of(settings)),
        start(),
        layer=lambda inner: RepeatedAnswers(inner, 2),
        on_round=lambda r, _: results.append(r),
    )
    expected = [epsilon(50.0, 30, answers, settings.logit_delta) for answers in (3, 4)]
    assert [result.metrics["epsilon"] for result in results] == pytest.approx(expected)


def test_only_fedmd_asks_for_logits() -> None:
    with pytest.raises(LetheError, match="only fedmd asks for logits"):
        RepeatedAnswers(FedAvg(), 0)


def test_accuracy_is_measured_when_the_plan_says_so() -> None:
    results: list[RoundResult] = []
    plan = plan_of(SETTINGS, 5, evaluate_every=2)
    train(plan, connected(clients_of(SETTINGS)), start(), on_round=lambda r, _: results.append(r))
    assert [r.round for r in results if "test-accuracy" in r.metrics] == [2, 4, 5]


def test_without_public_data_there_is_no_server_half() -> None:
    with pytest.raises(LetheError, match="without a model and data on the server"):
        lookup("fedmd").build(ServerSide(SETTINGS))
    without = Holdings(torch.nn.Identity, 2)
    with pytest.raises(LetheError, match=r"data\.public: given 0, but fedmd needs public data"):
        lookup("fedmd").build(ServerSide(SETTINGS, holdings=without))

"""What the local simulation promises to a ServerApp."""

import time

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from app.simulation import LocalGrid
from app.simulation.grid import PULL_SECONDS
from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from tests.app.simulation.helpers import APP, CLIENTS, STATE, ask, messages, model, pull_all, received

# Messages and replies


def test_hand_worked_round(grid: LocalGrid) -> None:
    """Client i adds i to each parameter: b = 0.5 becomes 0.5 + i; its number of examples is 1 + i."""
    replies = ask(grid, "train", model())
    for i, reply in enumerate(replies):
        torch.testing.assert_close(
            received(reply), {"w": STATE["w"] + i, "b": STATE["b"] + i}, rtol=0, atol=0
        )
        assert reply.content.metric_records["metrics"]["num-examples"] == 1 + i


def test_a_reply_is_addressed_as_flowers_own_grids_address_it(grid: LocalGrid) -> None:
    message = Message(model(), 3, "train", group_id="7")
    (reply,) = grid.send_and_receive([message])
    told, asked = reply.metadata, message.metadata
    assert told.reply_to_message_id == asked.message_id
    assert (told.src_node_id, told.dst_node_id) == (3, asked.src_node_id)
    assert (told.group_id, told.message_type, told.run_id) == ("7", "train", grid.run.run_id)
    assert told.message_id not in {"", asked.message_id}


def test_replies_carry_flat_float32_models(grid: LocalGrid) -> None:
    (reply,) = ask(grid, "train", model(), [1])
    record = reply.content.array_records["arrays"]
    assert isinstance(record, wire.FlatRecord)
    assert wire.flat_of(record, wire.Layout.of(STATE)) is record.flat


def test_every_kind_of_record_arrives(grid: LocalGrid) -> None:
    content = RecordDict(
        {"z": MetricRecord({"a": 1, "b": [0.5, 2.0]}), "arrays": ArrayRecord(STATE), "e": ArrayRecord()}
    )
    (echoed,) = ask(grid, "train.echo", content, [1])
    assert list(echoed.content) == ["z", "arrays", "e"]
    assert echoed.content["z"] == content["z"]
    torch.testing.assert_close(received(echoed), STATE, rtol=0, atol=0)
    (mixed,) = ask(grid, "train.mixed", model(), [1])
    assert list(mixed.content) == ["whole", "empty", "plain", "config"]
    assert mixed.content.array_records["whole"]["counts"].numpy().tolist() == [0, 1, 2]
    assert mixed.content.array_records["whole"]["half"].dtype == "float16"
    assert wire.state_of(mixed.content.array_records["plain"])["w"].tolist() == [[7.0] * 3] * 2
    assert dict(mixed.content.config_records["config"]) == {"name": "mixed", "flag": True, "list": [1, 2]}


def test_malformed_arrays_arrive_as_they_are(grid: LocalGrid) -> None:
    """Whoever aggregates must see what was wrong."""
    (reply,) = ask(grid, "train.malformed", model(), [1])
    assert reply.content.array_records["arrays"]["w"].data == b"no array"


def test_two_model_records_in_one_message(grid: LocalGrid) -> None:
    other = wire.record_of({name: -tensor for name, tensor in STATE.items()})
    (reply,) = ask(grid, "train.echo", RecordDict({"arrays": wire.record_of(STATE), "reference": other}), [2])
    torch.testing.assert_close(wire.state_of(reply.content.array_records["reference"])["w"], -STATE["w"])
    torch.testing.assert_close(received(reply), STATE)


def test_many_model_records_in_one_message(grid: LocalGrid) -> None:
    """More than are kept in shared memory between messages."""
    sent = RecordDict({str(i): wire.record_of({"w": torch.full((3,), float(i))}) for i in range(9)})
    for reply in ask(grid, "train.echo", sent):
        for name, record in reply.content.array_records.items():
            assert wire.state_of(record)["w"].tolist() == [float(name)] * 3


def test_messages_of_one_round_may_carry_different_models(grid: LocalGrid) -> None:
    """More than are kept in shared memory at a time."""
    pushed = [
        Message(model({"w": torch.full((4,), float(n))}), n % CLIENTS + 1, "train.echo") for n in range(20)
    ]
    replies = grid.send_and_receive(pushed)
    assert [float(received(reply)["w"][0]) for reply in replies] == list(range(20))


def test_a_model_may_change_its_size_between_rounds(grid: LocalGrid) -> None:
    for size in (10, 100_000, 20):
        replies = ask(grid, "train.large", RecordDict({"config": ConfigRecord({"size": size})}))
        assert all(received(reply)["w"].shape == (size,) for reply in replies)


def test_a_record_that_was_changed_in_place_is_sent_as_it_is_now(grid: LocalGrid) -> None:
    flat = wire.record_of({"w": torch.zeros(3)})
    plain = ArrayRecord({"w": torch.zeros(3)})
    for record in (flat, plain):
        ask(grid, "train.echo", RecordDict({"arrays": record}), [1])
    assert isinstance(flat, wire.FlatRecord)
    assert flat.flat is not None
    flat.flat.add_(1)
    plain["w"] = ArrayRecord({"w": torch.ones(3)})["w"]
    for record in (flat, plain):
        (reply,) = ask(grid, "train.echo", RecordDict({"arrays": record}), [1])
        assert received(reply)["w"].tolist() == [1, 1, 1]


def test_pull_hands_out_each_reply_once_and_never_waits_long(grid: LocalGrid) -> None:
    ids = grid.push_messages(messages(grid, "train", model()))
    assert len(pull_all(grid, ids)) == CLIENTS
    assert grid.pull_messages(ids) == []
    start = time.monotonic()
    assert all(grid.pull_messages([None, "unknown", ids[0]]) == [] for _ in range(100))
    assert time.monotonic() - start < 100 * PULL_SECONDS


def test_pull_returns_only_what_was_asked_for(grid: LocalGrid) -> None:
    first, second = (grid.push_messages(messages(grid, "train", model())) for _ in range(2))
    for ids in (second, first):
        assert {reply.metadata.reply_to_message_id for reply in pull_all(grid, ids)} == set(ids)


def test_create_message_is_the_constructor(grid: LocalGrid) -> None:
    message = grid.create_message(RecordDict(), "query.count", 2, "1")
    assert (message.metadata.dst_node_id, message.metadata.group_id) == (2, "1")


def test_flowers_own_strategy_runs_over_it(grid: LocalGrid) -> None:
    """FedAvg weighs client i, which adds i, by 1 + i: one round adds Σ i(1+i) / Σ (1+i) = 70 / 21."""
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=1.0, min_available_nodes=CLIENTS)
    result = strategy.start(grid, ArrayRecord(STATE), num_rounds=2, timeout=900)
    expected = {name: tensor + 2 * 70 / 21 for name, tensor in STATE.items()}
    torch.testing.assert_close(result.arrays.to_torch_state_dict(), expected)
    assert result.evaluate_metrics_clientapp[2]["loss"] == pytest.approx(0.5)


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_clients": 0}, "clients: got 0, expected at least 1"),
        ({"num_clients": 2, "workers": -1}, r"run.workers: got -1, expected 0 \(one per core\) or more"),
    ],
)
def test_bad_numbers(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        LocalGrid(APP, {}, **arguments)
    with pytest.raises(BadInput, match=r"import path: got 'app', expected 'package.module:name'"):
        LocalGrid("app", {}, 1)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tests.app.simulation.apps:nothing", "module 'tests.app.simulation.apps' has no 'nothing'"),
        ("tests.app.simulation.apps:prepare", "is of type function, expected a ClientApp"),
        ("no.such.module:app", "No module named 'no'"),
    ],
)
def test_a_client_app_that_cannot_be_loaded(path: str, message: str) -> None:
    with LocalGrid(path, {}, 2, 1) as grid, pytest.raises(LetheError, match=message):
        ask(grid, "train", model())


def test_a_run_config_that_the_clients_refuse_is_bad_input(capfd: pytest.CaptureFixture[str]) -> None:
    """As the clients said it, in one line and without a traceback."""
    path = "tests.app.simulation.apps:refuse_config"
    with (
        LocalGrid(APP, {}, 2, 1, prepare=path) as grid,
        pytest.raises(BadInput, match=r"^data\.clients: 5000"),
    ):
        ask(grid, "train", model())
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_than_on_linux_it_is_refused_before_anything_starts(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.simulation.launch.sys.platform", platform)
    with pytest.raises(BadInput, match=rf"^platform: got {platform}, .* needs Linux .* use flwr run$"):
        LocalGrid(APP, {}, 2)

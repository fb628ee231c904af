"""The local simulation: what it promises to a ServerApp, to a ClientApp and to the machine."""

import gc
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp.strategy import FedAvg

from app.simulation import LocalGrid
from app.simulation.grid import PULL_SECONDS, REPLIES_PER_PULL
from strategies import wire
from strategies.errors import BadInput, LetheError

APP = "tests.app.simulation_clients:app"
CLIENTS = 6
STATE = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([0.5])}
SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def grid() -> Iterator[LocalGrid]:
    """Two workers; no test may leave states or open messages."""
    with LocalGrid(APP, {"name": "test", "rate": 0.5}, CLIENTS, 2) as started:
        yield started


@pytest.fixture(scope="module")
def lone() -> Iterator[LocalGrid]:
    """One worker."""
    with LocalGrid(APP, {}, CLIENTS, 1) as started:
        yield started


def model(state: wire.State = STATE) -> RecordDict:
    return RecordDict({"arrays": wire.record_of(state), "config": ConfigRecord({"server-round": 1})})


def messages(
    grid: LocalGrid, kind: str, content: RecordDict | None = None, nodes: Sequence[int] = ()
) -> list[Message]:
    return [Message(content or RecordDict(), node, kind) for node in nodes or grid.get_node_ids()]


def ask(
    grid: LocalGrid, kind: str, content: RecordDict | None = None, nodes: Sequence[int] = ()
) -> list[Message]:
    return grid.send_and_receive(messages(grid, kind, content, nodes), timeout=60)


def received(reply: Message) -> wire.State:
    return wire.state_of(reply.content.array_records["arrays"])


def pull_all(grid: LocalGrid, ids: Sequence[str]) -> list[Message]:
    waiting, replies = set(ids), []
    while waiting:
        for reply in grid.pull_messages(waiting):
            waiting.remove(reply.metadata.reply_to_message_id)
            replies.append(reply)
    return replies


def descendants(process: int) -> set[int]:
    """Ids of all living processes below one."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(folder.name)] = int(parent)
    found, latest = set[int](), {process}
    while latest := {child for child, parent in parents.items() if parent in latest}:
        found |= latest
    return found


def children() -> set[int]:
    return descendants(os.getpid())


def ended(process: int, seconds: float = 10.0) -> bool:
    status = Path(f"/proc/{process}/stat")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return False


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


# What a client is told, and what it keeps


def test_clients_know_who_they_are_and_cannot_change_it(grid: LocalGrid) -> None:
    for _ in range(2):
        for i, reply in enumerate(ask(grid, "query.context")):
            told = reply.content.config_records["config"]
            assert (told["node-id"], told["partition-id"], told["num-partitions"]) == (i + 1, i, CLIENTS)
            assert (told["name"], told["rate"], told["threads"]) == ("test", 0.5, 1)


def test_own_node_configs_and_prepare() -> None:
    configs = [{"client-id": "hospital-a"}, {"client-id": "hospital-b"}]
    prepare = "tests.app.simulation_clients:prepare"
    with LocalGrid(APP, {"name": "data"}, node_configs=configs, workers=2, prepare=prepare) as grid:
        assert grid.get_node_ids() == [1, 2]
        told = [r.content.config_records["config"] for r in ask(grid, "query.context", nodes=[1, 2, 1, 2])]
        assert [t["client-id"] for t in told] == ["hospital-a", "hospital-b"] * 2
        assert all(t["prepared"] == ["data"] for t in told)


def test_state_follows_the_client_to_any_worker(grid: LocalGrid) -> None:
    visits = [ask(grid, "query.count") for _ in range(3)]
    for i, replies in enumerate(visits):
        assert [r.content.metric_records["metrics"]["visits"] for r in replies] == [i + 1] * CLIENTS
    ask(grid, "query.forget")
    assert grid.client_states() == {}


def test_messages_to_one_client_are_worked_on_in_order(grid: LocalGrid) -> None:
    replies = ask(grid, "query.count", nodes=[4] * 8)
    assert [r.content.metric_records["metrics"]["visits"] for r in replies] == list(range(1, 9))
    ask(grid, "query.forget", nodes=[4])


def test_a_state_may_hold_a_model(grid: LocalGrid) -> None:
    large = {"w": torch.ones(50_000)}
    totals = [ask(grid, "query.keep", model(large), [1, 2]) for _ in range(2)]
    assert [r.content.metric_records["metrics"]["total"] for pair in totals for r in pair] == [
        0,
        0,
        50_000,
        50_000,
    ]
    ask(grid, "query.forget", nodes=[1, 2])


def test_states_are_saved_and_restored(grid: LocalGrid) -> None:
    ask(grid, "query.count", nodes=[1, 1, 2])
    states = grid.client_states()
    assert sorted(states) == [1, 2]
    ask(grid, "query.forget")
    grid.restore_client_states(states)
    replies = ask(grid, "query.count", nodes=[1, 2, 3])
    assert [r.content.metric_records["metrics"]["visits"] for r in replies] == [3, 2, 1]
    ask(grid, "query.forget")


def test_states_that_cannot_be_restored_change_nothing(grid: LocalGrid) -> None:
    ask(grid, "query.count", nodes=[5])
    with pytest.raises(LetheError, match=r"state of an unknown node 7, expected 1 to 6"):
        grid.restore_client_states({7: b""})
    with pytest.raises(LetheError, match=r"the state of node 1 cannot be read"):
        grid.restore_client_states({1: b"\xff"})
    assert list(grid.client_states()) == [5]
    ask(grid, "query.forget")


def test_a_client_that_fails_leaves_its_state_as_it_was(grid: LocalGrid) -> None:
    replies = (
        ask(grid, "query.count", nodes=[1])
        + ask(grid, "query.fail", nodes=[1])
        + ask(grid, "query.count", nodes=[1])
    )
    assert replies[-1].content.metric_records["metrics"]["visits"] == 2
    ask(grid, "query.forget", nodes=[1])


def test_a_client_that_writes_into_the_model_harms_nobody(grid: LocalGrid) -> None:
    """Every client adds one in place; each must start from the model that was sent."""
    content = model()
    for _ in range(3):
        for reply in ask(grid, "train.overwrite", content):
            torch.testing.assert_close(received(reply), {n: t + 1 for n, t in STATE.items()}, rtol=0, atol=0)
    torch.testing.assert_close(wire.state_of(content.array_records["arrays"]), STATE, rtol=0, atol=0)


def test_any_number_of_workers_gives_the_same_bits(grid: LocalGrid, lone: LocalGrid) -> None:
    for mine, theirs in zip(*(ask(g, "train.seeded", model()) for g in (grid, lone)), strict=True):
        assert all(torch.equal(received(mine)[name], received(theirs)[name]) for name in STATE)


# What goes wrong with clients


def test_an_exception_becomes_an_error_reply(grid: LocalGrid) -> None:
    (reply,) = ask(grid, "query.fail", nodes=[2])
    assert not reply.has_content()
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert reply.error.reason is not None
    assert reply.error.reason.startswith("ValueError: boom (simulation_clients.py:")
    assert reply.metadata.src_node_id == 2


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("query.wrong", "the ClientApp returned str, expected a Message"),
        ("query.quit", "SystemExit: enough"),
        ("query.unheard", "No query function registered with name 'unheard'"),
    ],
)
def test_other_failures_say_what_happened(grid: LocalGrid, kind: str, reason: str) -> None:
    (reply,) = ask(grid, kind, nodes=[1])
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert reason in str(reply.error.reason)


def test_a_clients_own_error_reply_is_passed_on(grid: LocalGrid) -> None:
    (reply,) = ask(grid, "query.refuse", nodes=[1])
    assert (reply.error.code, reply.error.reason) == (6, "no budget left")


def test_an_unknown_node_is_an_error_reply(grid: LocalGrid) -> None:
    (reply,) = ask(grid, "train", model(), [99])
    assert (reply.error.code, reply.error.reason) == (
        ErrorCode.NODE_UNAVAILABLE,
        "there is no node 99, only 1 to 6",
    )


def test_a_dead_worker_is_named_and_replaced(grid: LocalGrid) -> None:
    before = grid.counts["replaced-workers"]
    replies = ask(grid, "query.killed")
    assert [reply.has_error() for reply in replies] == [True] + [False] * (CLIENTS - 1)
    assert replies[0].error.code == ErrorCode.CLIENT_APP_CRASHED
    assert "killed by SIGKILL" in str(replies[0].error.reason)
    (left,) = ask(grid, "query.exit", nodes=[2])
    assert "exit status 3" in str(left.error.reason)
    assert grid.counts["replaced-workers"] - before == 2
    assert not any(reply.has_error() for reply in ask(grid, "train", model()))


def test_a_worker_killed_while_idle_is_replaced(lone: LocalGrid) -> None:
    (told,) = ask(lone, "query.context", nodes=[1])
    process = int(str(told.content.config_records["config"]["process"]))
    os.kill(process, signal.SIGKILL)
    assert ended(process)
    assert not any(reply.has_error() for reply in ask(lone, "train", model()))


def test_a_stuck_client_holds_up_nobody(grid: LocalGrid) -> None:
    ids = grid.push_messages(messages(grid, "query.sleep"))
    assert len(pull_all(grid, ids[1:])) == CLIENTS - 1
    assert grid.pull_messages(ids) == []
    grid.cancel(ids[:1])
    start = time.monotonic()
    assert len(ask(grid, "train", model())) == CLIENTS
    assert time.monotonic() - start < 30
    assert grid.pull_messages(ids) == []


def test_send_and_receive_gives_up_after_its_timeout(lone: LocalGrid) -> None:
    before = lone.counts
    replies = lone.send_and_receive(messages(lone, "query.sleep", nodes=[2, 1, 3]), timeout=2)
    assert [reply.metadata.src_node_id for reply in replies] == [2]
    assert len(ask(lone, "train", model())) == CLIENTS
    assert lone.counts == {**before, "replaced-workers": before["replaced-workers"] + 1}


def test_replies_that_nobody_wants_any_more_are_dropped_and_counted(grid: LocalGrid) -> None:
    before = grid.counts["dropped-replies"]
    ids = grid.push_messages(messages(grid, "train", model()))
    time.sleep(0.5)
    grid.cancel(ids)
    assert grid.pull_messages(ids) == []
    assert len(ask(grid, "train", model())) == CLIENTS
    assert 1 <= grid.counts["dropped-replies"] - before <= CLIENTS
    assert grid.counts["undelivered-replies"] == 0


# The machine


def test_few_replies_are_in_memory_at_a_time(grid: LocalGrid) -> None:
    """200 replies: never more waiting than one pull hands out, beside two that each worker holds."""
    content = model({"w": torch.zeros(1_000)})
    waiting = set(grid.push_messages(messages(grid, "train", content, grid.get_node_ids() * 34)[:200]))
    most, count = 0, 0
    while waiting:
        time.sleep(0.002)
        replies = grid.pull_messages(waiting)
        most = max(most, len(replies) + grid.counts["undelivered-replies"])
        count += len(replies)
        waiting -= {reply.metadata.reply_to_message_id for reply in replies}
    assert count == 200
    assert most <= REPLIES_PER_PULL


def test_a_reply_is_freed_when_it_is_let_go(grid: LocalGrid) -> None:
    """Without the garbage collector: a cycle would keep every reply of a round in memory."""
    gc.disable()
    try:
        (reply,) = ask(grid, "train", model(), [1])
        record = weakref.ref(reply.content.array_records["arrays"])
        assert reply.content.metric_records["metrics"]["num-examples"] == 1
        assert not reply.content.config_records
        del reply
        assert record() is None
    finally:
        gc.enable()


def test_views_of_a_content_change_it(grid: LocalGrid) -> None:
    (reply,) = ask(grid, "train", model(), [1])
    metrics, arrays = reply.content.metric_records, reply.content.array_records
    metrics["more"] = MetricRecord({"a": 1})
    del arrays["arrays"]
    assert list(reply.content) == ["metrics", "more"]
    with pytest.raises(TypeError, match="expected MetricRecord for the value, got ConfigRecord"):
        metrics["config"] = ConfigRecord({})  # type: ignore[assignment]


def test_nothing_is_left_behind() -> None:
    before, memory = children(), set(SHARED_MEMORY.iterdir())
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with LocalGrid(APP, {}, 8, 2) as grid:
        ask(grid, "train", model())
        ask(grid, "query.killed")
        assert set(SHARED_MEMORY.iterdir()) <= memory
        ask(grid, "train", model())
        assert len(children() - before) == 3
    assert children() <= before
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    grid.close()
    with pytest.raises(LetheError, match="the grid is closed"):
        grid.push_messages([])
    grid.cancel(["1"])


def test_the_server_leaves_the_cores_to_the_workers() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with LocalGrid(APP, {}, 1, 1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_closing_does_not_wait_for_the_clients_to_be_loaded() -> None:
    before = children()
    start = time.monotonic()
    with LocalGrid(APP, {}, 2, 2, prepare="tests.app.simulation_clients:prepare_for_long"):
        assert len(children() - before) == 1
    assert time.monotonic() - start < 9
    assert children() <= before


def test_closing_ends_workers_that_are_busy() -> None:
    before = children()
    with LocalGrid(APP, {}, 2, 2) as grid:
        grid.push_messages(
            messages(grid, "query.sleep", RecordDict({"config": ConfigRecord({"seconds": 600})}))
        )
        grid.pull_messages(["1"])
        assert len(children() - before) == 3
    assert children() <= before


def script(text: str) -> "subprocess.Popen[str]":
    """Start a Python that reads a script from standard input: no main module that could be imported again."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error::ResourceWarning", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.close()
    process.stdin = None
    return process


def test_a_script_that_never_closes_leaves_nothing_and_prints_only_its_own() -> None:
    text = (
        "from flwr.app import Message, RecordDict\n"
        "from app.simulation import LocalGrid\n"
        f"grid = LocalGrid({APP!r}, {{}}, 2, 1)\n"
        "print(len(grid.send_and_receive([Message(RecordDict(), n, 'query.print') for n in (1, 2)])))\n"
    )
    out, err = script(text).communicate(timeout=120)
    assert (out, err) == ("2\n", "printed by a client\n" * 2)


def test_workers_leave_when_the_parent_is_killed() -> None:
    text = (
        "import time\n"
        "from flwr.app import ConfigRecord, Message, RecordDict\n"
        "from app.simulation import LocalGrid\n"
        f"grid = LocalGrid({APP!r}, {{}}, 2, 2)\n"
        "content = RecordDict({'config': ConfigRecord({'seconds': 600})})\n"
        "grid.push_messages([Message(content, n, 'query.sleep') for n in (1, 2)])\n"
        "print('running', flush=True)\n"
        "time.sleep(600)\n"
    )
    process = script(text)
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    started = descendants(process.pid)
    assert len(started) == 3
    process.kill()
    process.communicate()
    assert all(ended(worker) for worker in started)


def test_flowers_own_strategy_runs_over_it(grid: LocalGrid) -> None:
    """FedAvg weighs client i, which adds i, by 1 + i: one round adds Σ i(1+i) / Σ (1+i) = 70 / 21."""
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=1.0, min_available_nodes=CLIENTS)
    result = strategy.start(grid, ArrayRecord(STATE), num_rounds=2, timeout=60)
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
        ("tests.app.simulation_clients:nothing", "module 'tests.app.simulation_clients' has no 'nothing'"),
        ("tests.app.simulation_clients:prepare", "is of type function, expected a ClientApp"),
        ("no.such.module:app", "No module named 'no'"),
    ],
)
def test_a_client_app_that_cannot_be_loaded(path: str, message: str) -> None:
    with LocalGrid(path, {}, 2, 1) as grid, pytest.raises(LetheError, match=message):
        ask(grid, "train", model())

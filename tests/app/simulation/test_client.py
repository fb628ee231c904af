"""What the local simulation promises to a ClientApp, and what it makes of one that fails."""

import os
import signal
import time

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict
from flwr.common.constant import ErrorCode

from app.simulation import LocalGrid
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.server.cohort import Cohort, Fault
from tests.app.simulation.helpers import APP, CLIENTS, STATE, ask, ended, messages, model, pull_all, received

# What a client is told, and what it keeps


def test_clients_know_who_they_are_and_cannot_change_it(grid: LocalGrid) -> None:
    for _ in range(2):
        for i, reply in enumerate(ask(grid, "query.context")):
            told = reply.content.config_records["config"]
            assert (told["node-id"], told["partition-id"], told["num-partitions"]) == (i + 1, i, CLIENTS)
            assert (told["name"], told["rate"], told["threads"]) == ("test", 0.5, 1)


def test_workers_collect_garbage_but_not_among_what_they_share(grid: LocalGrid) -> None:
    """To look at it would be to copy it; torch alone makes 100 000 objects."""
    for reply in ask(grid, "query.context"):
        told = reply.content.config_records["config"]
        assert told["collects"]
        assert int(str(told["frozen"])) > 100_000


def test_own_node_configs_and_prepare() -> None:
    configs = [{"client-id": "hospital-a"}, {"client-id": "hospital-b"}]
    prepare = "tests.app.simulation.apps:prepare"
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
    assert reply.error.reason.startswith("ValueError: boom (apps.py:")
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


@pytest.mark.parametrize("hangs", [False, True])
def test_a_clients_time_begins_when_a_worker_takes_its_message(lone: LocalGrid, hangs: bool) -> None:
    """Six naps of a second are longer than the four that each has; who hangs is lost, and nobody else."""
    cohort = Cohort(lone, timeout=4.0)
    cohort.connect(CLIENTS)
    question = RecordDict({"config": ConfigRecord({"hangs": hangs})})
    answered = [reply.client_id for reply in cohort.ask("query.nap", question)]
    assert answered == [f"c{i}" for i in range(hangs, CLIENTS)]
    assert cohort.faults == ([Fault("c0", "query.nap", "no answer in 4 s")] if hangs else [])
    assert lone.begun([]) == {}


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

"""What the local simulation promises to the machine: processes, memory, cores."""

import gc
import os
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from app.simulation import LocalGrid
from app.simulation.pool import at_once
from strategies.core.errors import LetheError
from tests.app.simulation.helpers import (
    APP,
    ask,
    children,
    descendants,
    ended,
    messages,
    model,
)

SHARED_MEMORY = Path("/dev/shm")
pytestmark = pytest.mark.usefixtures("_real_start")


# The machine


def test_few_replies_are_in_memory_at_a_time(grid: LocalGrid) -> None:
    """200 replies of 800 kB: never more waiting than one pull hands out, beside two in each worker."""
    content = model({"w": torch.zeros(200_000)})
    waiting = set(grid.push_messages(messages(grid, "train", content, grid.get_node_ids() * 34)[:200]))
    most, count = 0, 0
    while waiting:
        time.sleep(0.002)
        replies = grid.pull_messages(waiting)
        most = max(most, len(replies) + grid.counts["undelivered-replies"])
        count += len(replies)
        waiting -= {reply.metadata.reply_to_message_id for reply in replies}
    assert count == 200
    assert most <= 2


@pytest.mark.parametrize(
    ("largest", "expected"), [(0, 16), (100_000, 16), (500_000, 4), (2**24, 2), (2**25, 1)]
)
def test_the_smaller_the_replies_the_more_at_once(largest: int, expected: int) -> None:
    """Two megabytes of replies at once, at most sixteen replies, at least two up to 16 MiB."""
    assert at_once(largest) == expected


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
    with LocalGrid(APP, {}, 2, 2, prepare="tests.app.simulation.apps:prepare_for_long"):
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
    out, err = script(text).communicate(timeout=900)
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

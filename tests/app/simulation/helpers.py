"""What the tests of the local simulation share."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from flwr.app import ConfigRecord, Message, RecordDict

from app.simulation import LocalGrid
from strategies.core import wire

APP = "tests.app.simulation.apps:app"
CLIENTS = 6
STATE = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([0.5])}


def model(state: wire.State = STATE) -> RecordDict:
    return RecordDict({"arrays": wire.record_of(state), "config": ConfigRecord({"server-round": 1})})


def messages(
    grid: LocalGrid, kind: str, content: RecordDict | None = None, nodes: Sequence[int] = ()
) -> list[Message]:
    return [Message(content or RecordDict(), node, kind) for node in nodes or grid.get_node_ids()]


def ask(
    grid: LocalGrid, kind: str, content: RecordDict | None = None, nodes: Sequence[int] = ()
) -> list[Message]:
    return grid.send_and_receive(messages(grid, kind, content, nodes), timeout=900)


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

"""Small update logs for tests, and writers that are killed while they write."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, takewhile
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from strategies.core.seeds import torch_generator
from strategies.core.wire import Layout
from strategies.log.update_log import UpdateLog
from strategies.runs.checkpoint import Checkpoint
from strategies.runs.folder import RunFolder

ONE = Layout(("w",), ((1,),))
"""A model of one parameter."""

Round = Mapping[str, tuple[float, Tensor]]
"""Client-id -> (number of examples, update)."""


def one(value: float) -> Tensor:
    """Return a vector of one entry."""
    return torch.tensor([value])


HAND_WORKED: Sequence[Round] = (
    {"a": (1, one(2.0)), "b": (3, one(4.0))},
    {"a": (1, one(1.0)), "b": (1, one(-1.0))},
)
"""Weights 1/4 and 3/4, then 1/2 and 1/2: a adds up to 2/4 + 1/2 = 1, b to 3·4/4 − 1/2 = 2.5."""


def write_round(
    log: UpdateLog,
    number: int,
    updates: Round,
    *,
    averaging: bool = True,
    expected_weight: float | None = None,
) -> None:
    """Add and commit one round, clients in the given order."""
    log.begin_round(number, expected_weight)
    for client_id, (weight, delta) in updates.items():
        log.add(number, client_id, weight, int(weight), delta, float(delta.norm()))
    log.commit_round(number, averaging)


def make_log(
    path: Path,
    rounds: Sequence[Round],
    retention: str = "full",
    dtype: str = "float32",
    layout: Layout = ONE,
) -> UpdateLog:
    """Return a log with these rounds, from 1 on, opened for reading."""
    with UpdateLog.create(path, layout, retention, dtype) as log:
        for number, updates in enumerate(rounds, start=1):
            write_round(log, number, updates)
    return UpdateLog.open(path)


def random_rounds(num_rounds: int, clients: Sequence[str], size: int, seed: int = 0) -> list[Round]:
    """Return rounds of normal updates with 1 to 50 examples."""
    generator = torch_generator(seed, "rounds")
    examples = torch.randint(1, 51, (num_rounds, len(clients)), generator=generator)
    return [
        {c: (int(examples[t, i]), torch.randn(size, generator=generator)) for i, c in enumerate(clients)}
        for t in range(num_rounds)
    ]


def flip_byte(path: Path, position: int) -> None:
    """Invert one byte of a file; negative positions count from the end."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


KILLED_SIZE = 20_000
KILLED_CLIENTS = ("0", "1", "2")


def killed_update(server_round: int, client_id: str) -> Tensor:
    """Return the update that the writer below logs: known from round and client."""
    return torch.full((KILLED_SIZE,), server_round + int(client_id) / 8)


def write_until_killed(path: Path, retention: str) -> None:
    """Add rounds to a log, each client with weight 1/3."""
    layout = Layout(("w",), ((KILLED_SIZE,),))
    exists = (path / "index.sqlite").exists()
    log = UpdateLog.open(path, write=True) if exists else UpdateLog.create(path, layout, retention)
    for number in _until_killed(max(log.rounds(), default=0)):
        updates = {c: (1.0, killed_update(number, c)) for c in KILLED_CLIENTS}
        write_round(log, number, updates, expected_weight=3.0 + number % 2)  # Right in every other round


def checkpoint_until_killed(path: Path) -> None:
    """Write checkpoints and metrics to a run folder."""
    folder = RunFolder(path)
    last = folder.read_checkpoint()
    completed = last.round if last else 0
    folder.rewind_metrics(completed)
    for number in _until_killed(completed):
        folder.append_metrics({"round": number})
        folder.write_checkpoint(Checkpoint(number, {"w": torch.full((KILLED_SIZE,), float(number))}))


def _until_killed(last: int) -> Iterator[int]:
    """Count on from a number, for a minute at most, should whoever was to kill this be killed before."""
    end = time.monotonic() + 900
    return takewhile(lambda _: time.monotonic() < end, count(last + 1))


def kill_after(seconds: float, work: Callable[..., None], *args: object) -> None:
    """Start the work in a process of its own and kill it, without any chance to clean up."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.strategies.update_logs"])
    process = context.Process(target=work, args=args, daemon=True)
    process.start()
    time.sleep(seconds)
    if process.pid is None or not process.is_alive():
        raise AssertionError("the writer ended by itself")
    os.kill(process.pid, signal.SIGKILL)
    process.join()

"""The worker processes as the parent sees them: their jobs, their replies, their deaths.

A worker has two slots, so at most two groups of messages, mostly of one each: the one it runs, and one that
waits in its socket so that it need not idle while the parent is busy. A slot is free again when its replies
were read. That is all the back-pressure: if no reply is read, workers wait. With large models, the time to
fetch the next message is negligible beside the training, and memory counts: the second slot stays empty then.
"""

import selectors
import socket
import subprocess
import time
from collections import Counter, deque
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import recorddict_to_proto
from flwr.common.serde_utils import metadata_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from app.messages.codec import layout_text
from app.simulation import channel
from app.simulation.broadcast import Broadcast, Broadcasts
from app.simulation.jobs import Group, Job, Outcome, singly
from app.simulation.launch import Setup, describe_status, launch
from app.simulation.memory import SharedMemory
from app.simulation.progress import Progress
from app.simulation.worker import describe, described_in, read_reply
from strategies.core.errors import BadInput, LetheError

_SLOTS = 2
_LARGE_BYTES = 2**24
_REAP_SECONDS = 1.0
_CLOSE_SECONDS = 10.0


@dataclass(eq=False)
class WorkerHandle:
    """One worker process."""

    process: int
    connection: socket.socket
    slots: Sequence[SharedMemory]
    progress: Progress
    jobs: deque[tuple[Group, int]] = field(default_factory=deque)
    free_slots: list[int] = field(default_factory=lambda: list(range(_SLOTS)))
    known: set[int] = field(default_factory=set)
    alive: bool = True

    @property
    def running(self) -> Group:
        """The jobs whose replies come next; empty if there are none."""
        return self.jobs[0][0] if self.jobs else ()

    @property
    def at_work(self) -> dict[str, float]:
        """When it began with the messages that it is at, by id.

        Of a group, that is one client after the other; all of them while they train together.
        """
        group = self.running
        if len(group) < 2:
            return {job.message_id: job.began for job in group if job.began is not None}
        turn, since = self.progress.read(), group[0].began or 0.0
        which = group if turn.number is None else group[turn.number : turn.number + 1]
        return {job.message_id: max(turn.began, since) for job in which}

    @property
    def is_stuck(self) -> bool:
        """Whether nobody waits any more for what it is at."""
        at_work = self.at_work
        present = [job for job in self.running if job.message_id in at_work]
        gone = bool(present) and all(job.abandoned for job in present)
        return gone or (bool(self.running) and all(job.abandoned for job in self.running))


class WorkerPool:
    """Starts workers, gives them jobs, and collects their replies."""

    def __init__(self, setup: Setup) -> None:
        self.size = setup.workers
        self.workers: list[WorkerHandle] = []
        self.num_replaced = 0
        self.where_faster = False
        self.together = 0
        self.alone: Counter[str] = Counter()
        self._broadcasts = Broadcasts()
        self._selector = selectors.DefaultSelector()
        self._ready: deque[WorkerHandle] = deque()
        self._loaded = False
        self._largest = 0
        self._starter, self._control = launch(setup)

    @property
    def has_large_models(self) -> bool:
        """Whether a message or reply was so large that few should be in memory at once."""
        return self._largest > _LARGE_BYTES

    def find(self, *, queue: bool) -> WorkerHandle | None:
        """Return a worker that can take a job, an idle one if possible; start one if necessary.

        With `queue` it may be a busy worker, which keeps the job until it is done with its present one.

        Raises
        ------
        LetheError
            If no worker can be started.
        """
        for worker in self.workers:
            if worker.alive and not worker.jobs:
                return worker
        if len(self.workers) < self.size:
            return self._spawn()
        if not queue or self.has_large_models:
            return None
        return next((w for w in self.workers if w.alive and w.free_slots), None)

    def give(self, worker: WorkerHandle, group: Group, states: Sequence[bytes]) -> bool:
        """Send jobs and their clients' states to a worker with a free slot; return whether it took them.

        A worker that died does not take them, and `wait` will report that.
        """
        number = worker.free_slots[-1]
        slot = worker.slots[number]
        self._broadcasts.trim()  # Before, not after: all records of a message must be there together
        used: dict[int, Broadcast] = {}
        end, described = 0, list[dict[str, Any]]()
        for job, state in zip(group, states, strict=True):
            entry, end = self._put(slot, end, job.message, state, used)
            described.append(entry)
        new = [b for n, b in used.items() if n not in worker.known]
        outdated = worker.known - self._broadcasts.numbers - used.keys()
        worker.known -= outdated
        header = {
            "slot": number,
            "where-faster": self.where_faster,
            "new": [(b.number, layout_text(b.layout)) for b in new],
            "drop": sorted(outdated),
            **describe(slot, end, described),
        }
        try:
            channel.send(worker.connection, header, [b.memory.descriptor for b in new])
        except channel.Closed:
            worker.alive = False
            return False
        worker.known.update(b.number for b in new)
        self._largest = max(self._largest, *(b.memory.size for b in new), 0)
        worker.jobs.append((group, worker.free_slots.pop()))
        _note_beginning(worker)
        return True

    def wait(self, seconds: float, limit: int) -> list[Outcome]:
        """Return the jobs that ended, at most `limit`, waiting at most some seconds for the first."""
        if not self._ready:
            self._ready.extend(key.data for key, _ in self._selector.select(seconds))
        count = min(limit, len(self._ready))
        return [o for _ in range(count) for o in self._receive(self._ready.popleft())]

    def remove(self, worker: WorkerHandle) -> tuple[Group, ...]:
        """End a worker at once; return the jobs it had not started, and those beside an abandoned one."""
        beside = singly(worker.running) if len(worker.running) > 1 else ()
        unstarted = (*beside, *(group for group, _ in list(worker.jobs)[1:]))
        self._bury(worker, 0.0)
        return unstarted

    def at_work(self) -> dict[str, float]:
        """Return when workers began with the messages that they are at, by id."""
        return {i: began for worker in self.workers for i, began in worker.at_work.items()}

    def close(self) -> None:
        """End all workers."""
        self._control.close()
        if not self._loaded:
            self._starter.kill()  # It would notice only when it is done loading; there is no worker yet.
        for worker in self.workers:
            _release(worker)
        self.workers.clear()
        self._broadcasts.close()
        self._selector.close()
        try:
            self._starter.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._starter.kill()
            self._starter.wait()

    def _put(
        self, slot: SharedMemory, start: int, message: Message, state: bytes, used: dict[int, Broadcast]
    ) -> tuple[dict[str, Any], int]:
        """Write a message and its client's state into a slot.

        Returns what describes them, and the first byte behind them; adds the broadcasts that it carries.
        """
        content = message.content
        flats = {
            n: b for n, r in content.items() if isinstance(r, ArrayRecord) and (b := self._broadcasts.of(r))
        }
        used.update((b.number, b) for b in flats.values())
        data = _small_message(message, list(content), flats)
        middle, end = start + len(data), start + len(data) + len(state)
        view = slot.view(end)
        view[start:middle] = data
        view[middle:end] = state
        return {
            "names": list(content),
            "flats": [(name, broadcast.number) for name, broadcast in flats.items()],
            "message": [start, len(data)],
            "state": [middle, len(state)],
        }, end

    def _receive(self, worker: WorkerHandle) -> list[Outcome]:
        try:
            header, _ = channel.receive(worker.connection)
        except channel.Closed:
            return [self._mourn(worker)]
        group, number = worker.jobs.popleft()
        slot = worker.slots[number]
        worker.free_slots.append(number)
        _note_beginning(worker)
        pairs = zip(group, described_in(slot, header), strict=True)
        outcomes = [_outcome(job, slot, described) for job, described in pairs]
        self._largest = max(self._largest, slot.size // len(group))
        self.together += header["together"]
        self.alone.update(header["alone"])
        return outcomes

    def _mourn(self, worker: WorkerHandle) -> Outcome:
        running, unstarted = worker.running, tuple(group for group, _ in list(worker.jobs)[1:])
        ending = self._bury(worker, _REAP_SECONDS)
        if len(running) > 1:  # Nobody knows who of them did it: each is asked anew, by itself
            return Outcome(
                None, Error(ErrorCode.CLIENT_APP_CRASHED, ending), unstarted=(*singly(running), *unstarted)
            )
        reason = f"the worker died while it served this client: process {worker.process}, {ending}"
        job = running[0] if running else None
        return Outcome(job, Error(ErrorCode.CLIENT_APP_CRASHED, reason), unstarted=unstarted)

    def _bury(self, worker: WorkerHandle, seconds: float) -> str:
        self.workers.remove(worker)
        if worker in self._ready:
            self._ready.remove(worker)
        self._selector.unregister(worker.connection)
        _release(worker)
        self.num_replaced += 1
        return str(self._command({"reap": worker.process, "seconds": seconds})["ending"])

    def _spawn(self) -> WorkerHandle:
        self._await_start()
        ours, theirs = socket.socketpair()
        slots, progress = [SharedMemory.create() for _ in range(_SLOTS)], SharedMemory.create()
        Progress(progress).note(None)
        with theirs:
            given = [theirs.fileno(), progress.descriptor, *(slot.descriptor for slot in slots)]
            answer = self._command({"fork": True}, given)
        worker = WorkerHandle(answer["process"], ours, slots, Progress(progress))
        self._selector.register(ours, selectors.EVENT_READ, worker)
        self.workers.append(worker)
        return worker

    def _command(self, command: channel.Header, descriptors: Sequence[int] = ()) -> channel.Header:
        try:
            channel.send(self._control, command, descriptors)
            return channel.receive(self._control)[0]
        except channel.Closed:
            raise self._starter_is_gone() from None

    def _await_start(self) -> None:
        if self._loaded:
            return
        try:
            answer, _ = channel.receive(self._control)
        except channel.Closed:
            raise self._starter_is_gone() from None
        if "refused" in answer:
            raise BadInput(answer["refused"])
        if "error" in answer:
            raise LetheError(f"the ClientApp cannot be loaded: {answer['error']}")
        self._loaded = True

    def _starter_is_gone(self) -> LetheError:
        status = self._starter.wait(_CLOSE_SECONDS)
        return LetheError(f"the process that starts the workers is gone: {describe_status(status)}")


def _note_beginning(worker: WorkerHandle) -> None:
    """Note when a worker began with its current jobs; it does one group at a time, in order."""
    for job in worker.running:
        job.began = time.monotonic() if job.began is None else job.began


def _release(worker: WorkerHandle) -> None:
    worker.connection.close()
    for memory in (*worker.slots, worker.progress.memory):
        memory.close()


def _outcome(job: Job, slot: SharedMemory, described: dict[str, Any]) -> Outcome:
    if "error" in described:
        return Outcome(job, Error(*described["error"]))
    return Outcome(job, *read_reply(slot, described))


def _small_message(message: Message, names: Sequence[str], elsewhere: Container[str]) -> bytes:
    """Return a message without the records that travel as vectors."""
    small = RecordDict({name: message.content[name] for name in names if name not in elsewhere})
    proto = ProtoMessage(metadata=metadata_to_proto(message.metadata), content=recorddict_to_proto(small))
    data: bytes = proto.SerializeToString()
    return data

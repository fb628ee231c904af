"""The worker processes as the parent sees them: their jobs, their replies, their deaths.

A worker has two slots, so at most two messages: the one it runs, and one that waits in its socket so that it
need not idle while the parent is busy. A slot is free again when its reply was read. That is all the
back-pressure: if no reply is read, workers wait. With large models, the time to fetch the next message is
negligible beside the training, and memory counts: the second slot stays empty then.
"""

import selectors
import socket
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import recorddict_to_proto
from flwr.common.serde_utils import metadata_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from app.messages.codec import layout_text
from app.simulation import channel
from app.simulation.broadcast import Broadcast, Broadcasts
from app.simulation.jobs import Job, Outcome
from app.simulation.launch import Setup, describe_status, launch
from app.simulation.memory import SharedMemory
from app.simulation.worker import read_reply
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
    jobs: deque[tuple[Job, int]] = field(default_factory=deque)
    free_slots: list[int] = field(default_factory=lambda: list(range(_SLOTS)))
    known: set[int] = field(default_factory=set)
    alive: bool = True

    @property
    def running(self) -> Job | None:
        """The job whose reply comes next."""
        return self.jobs[0][0] if self.jobs else None


class WorkerPool:
    """Starts workers, gives them jobs, and collects their replies."""

    def __init__(self, setup: Setup) -> None:
        self.size = setup.workers
        self.workers: list[WorkerHandle] = []
        self.num_replaced = 0
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

    def give(self, worker: WorkerHandle, job: Job, state: bytes) -> bool:
        """Send a job and its client's state to a worker with a free slot; return whether it took the job.

        A worker that died does not take it, and `wait` will report that.
        """
        slot = worker.free_slots[-1]
        header, new = self._describe(worker, job.message.content)
        data = _small_message(job.message, header["names"], header["flats"])
        view = worker.slots[slot].view(len(data) + len(state))
        view[: len(data)] = data
        view[len(data) : len(data) + len(state)] = state
        header.update(slot=slot, message=len(data), state=len(state))
        try:
            channel.send(worker.connection, header, [b.memory.descriptor for b in new])
        except channel.Closed:
            worker.alive = False
            return False
        worker.known.update(b.number for b in new)
        self._largest = max(self._largest, *(b.memory.size for b in new), 0)
        worker.jobs.append((job, worker.free_slots.pop()))
        _note_beginning(worker)
        return True

    def wait(self, seconds: float, limit: int) -> list[Outcome]:
        """Return the jobs that ended, at most `limit`, waiting at most some seconds for the first."""
        if not self._ready:
            self._ready.extend(key.data for key, _ in self._selector.select(seconds))
        return [self._receive(self._ready.popleft()) for _ in range(min(limit, len(self._ready)))]

    def remove(self, worker: WorkerHandle) -> tuple[Job, ...]:
        """End a worker at once; return the jobs that it had not started."""
        unstarted = tuple(job for job, _ in list(worker.jobs)[1:])
        self._bury(worker, 0.0)
        return unstarted

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

    def _describe(self, worker: WorkerHandle, content: RecordDict) -> tuple[channel.Header, list[Broadcast]]:
        """Return the header's part about records, and the broadcasts that the worker does not have yet."""
        self._broadcasts.trim()  # Before, not after: all records of one message must be there together.
        used = {
            n: b for n, r in content.items() if isinstance(r, ArrayRecord) and (b := self._broadcasts.of(r))
        }
        new = {b.number: b for b in used.values() if b.number not in worker.known}
        outdated = worker.known - self._broadcasts.numbers - {b.number for b in used.values()}
        worker.known -= outdated
        header = {
            "names": list(content),
            "flats": [(name, broadcast.number) for name, broadcast in used.items()],
            "new": [(b.number, layout_text(b.layout)) for b in new.values()],
            "drop": sorted(outdated),
        }
        return header, list(new.values())

    def _receive(self, worker: WorkerHandle) -> Outcome:
        try:
            header, _ = channel.receive(worker.connection)
        except channel.Closed:
            return self._mourn(worker)
        job, slot = worker.jobs.popleft()
        worker.free_slots.append(slot)
        _note_beginning(worker)
        if "error" in header:
            return Outcome(job, Error(*header["error"]))
        outcome = Outcome(job, *read_reply(worker.slots[slot], header))
        self._largest = max(self._largest, worker.slots[slot].size)
        return outcome

    def _mourn(self, worker: WorkerHandle) -> Outcome:
        job = worker.running
        unstarted = tuple(job for job, _ in list(worker.jobs)[1:])
        ending = self._bury(worker, _REAP_SECONDS)
        reason = f"the worker died while it served this client: process {worker.process}, {ending}"
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
        slots = [SharedMemory.create() for _ in range(_SLOTS)]
        with theirs:
            answer = self._command({"fork": True}, [theirs.fileno(), *(slot.descriptor for slot in slots)])
        worker = WorkerHandle(answer["process"], ours, slots)
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
    """Note when a worker began with its current job; it does one at a time, in order."""
    if (job := worker.running) is not None and job.began is None:
        job.began = time.monotonic()


def _release(worker: WorkerHandle) -> None:
    worker.connection.close()
    for slot in worker.slots:
        slot.close()


def _small_message(message: Message, names: Sequence[str], flats: Sequence[tuple[str, int]]) -> bytes:
    """Return a message without the records that travel as vectors."""
    elsewhere = {name for name, _ in flats}
    small = RecordDict({name: message.content[name] for name in names if name not in elsewhere})
    proto = ProtoMessage(metadata=metadata_to_proto(message.metadata), content=recorddict_to_proto(small))
    data: bytes = proto.SerializeToString()
    return data

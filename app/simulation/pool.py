"""The worker processes as the parent sees them: their jobs, their replies, their deaths.

A worker has some slots, one for each group of messages that it has, mostly of one each: the one it runs, and
those that wait in its socket so that it need not idle while the parent is busy. A slot is free again when its
replies were read. That is all the back-pressure: if no reply is read, workers wait. How many groups a worker
has is bounded by the bytes of replies: of small ones a dozen wait and are read at once. With large models,
the time to fetch the next message is negligible beside the training, and memory counts: then it has one.
"""

import os
import selectors
import socket
import subprocess
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Error
from flwr.common.constant import ErrorCode

from app.messages.codec import layout_text
from app.simulation import channel
from app.simulation.broadcast import Broadcast, Broadcasts
from app.simulation.jobs import Group, Job, Outcome, Parcel, singly
from app.simulation.launch import Setup, describe_status, launch
from app.simulation.progress import Progress
from app.simulation.worker import describe, described_in, read_reply
from strategies.core.errors import BadInput, LetheError
from strategies.core.shared_memory import SharedMemory

_SLOTS = 16
_FEW_SLOTS = 2
_LARGE_BYTES = 2**24
_WAITING_BYTES = 2**21
"""Of replies that wait in a worker, where they are so small that there are more than a few."""
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
    parcel: Parcel | None = None
    alive: bool = True

    def __post_init__(self) -> None:
        """Read the socket in large pieces."""
        self.reader = channel.Reader(self.connection)

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
        self._arrived: deque[tuple[WorkerHandle, channel.Received | None]] = deque()
        self._loaded = False
        self._largest = self._largest_group = 0
        self._starter, self._control = launch(setup)

    @property
    def at_once(self) -> int:
        """How many replies of single messages may be in memory at once; at least 1."""
        return at_once(self._largest)

    def find(self, waiting: int) -> WorkerHandle | None:
        """Return a worker that can take a group, an idle one if possible; start one if necessary.

        It may be a busy worker, which keeps the group until it is done with those that it has, as long as the
        groups that are `waiting` for a worker keep all of them busy for twice as long.

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
        fitting = max(_FEW_SLOTS, _WAITING_BYTES // max(1, self._largest_group))
        most = min(self.at_once, fitting, 1 + waiting // (2 * self.size))
        least = min((w for w in self.workers if w.alive), key=lambda w: len(w.jobs), default=None)
        return None if least is None or len(least.jobs) >= most else least

    def give(self, worker: WorkerHandle, group: Group, states: Sequence[bytes]) -> bool:
        """Send jobs and their clients' states to a worker with a free slot; return whether it took them.

        A worker that died does not take them, and `wait` will report that.
        """
        number = worker.free_slots[-1]
        slot = worker.slots[number]
        same = all(job.parcel is worker.parcel for job in group)
        parcel = worker.parcel if same else None
        if not same:
            self._broadcasts.trim()  # Before, not after: all records of a message must be there together
        used: dict[int, Broadcast] = {}
        end, described = 0, list[dict[str, Any]]()
        for job, state in zip(group, states, strict=True):
            entry, data = ({}, b"") if job.parcel is parcel else self._described(job.parcel, end, used)
            parcel, middle = job.parcel, end + len(data)
            end = _put(slot, end, data, state)
            ids = {"message": job.message_id, "node": job.node_id}
            described.append({**entry, **ids, "state": [middle, len(state)]})
        new = [b for n, b in used.items() if n not in worker.known]
        outdated = set() if same else worker.known - self._broadcasts.numbers - used.keys()
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
        worker.parcel = parcel
        worker.known.update(b.number for b in new)
        self._largest = max(self._largest, *(b.num_bytes for b in new), 0)
        worker.jobs.append((group, worker.free_slots.pop()))
        _note_beginning(worker)
        return True

    def wait(self, seconds: float, limit: int) -> list[Outcome]:
        """Return the jobs that ended, at most `limit`, waiting at most some seconds for the first."""
        if not self._arrived:
            for key, _ in self._selector.select(seconds):
                self._arrived.extend((key.data, received) for received in _received(key.data))
        count = min(limit, len(self._arrived))
        return [o for _ in range(count) for o in self._receive(*self._arrived.popleft())]

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

    def _described(
        self, parcel: Parcel, start: int, used: dict[int, Broadcast]
    ) -> tuple[dict[str, Any], bytes]:
        """Return what describes a parcel whose bytes begin at a place, and these; add what it broadcasts."""
        flats = {n: b for n, record in parcel.arrays.items() if (b := self._broadcasts.of(record))}
        used.update((b.number, b) for b in flats.values())
        small, middle = parcel.small(flats), start + len(parcel.metadata)
        return {
            "names": list(parcel.content),
            "flats": [(name, broadcast.number) for name, broadcast in flats.items()],
            "metadata": [start, len(parcel.metadata)],
            "small": [middle, len(small)],
        }, parcel.metadata + small

    def _receive(self, worker: WorkerHandle, received: channel.Received | None) -> list[Outcome]:
        if received is None:
            return [self._mourn(worker)]
        header, descriptors = received
        group, number = worker.jobs.popleft()
        slot = worker.slots[number]
        worker.free_slots.append(number)
        _note_beginning(worker)
        pairs = zip(group, described_in(slot, header), strict=True)
        handed = iter(descriptors)
        outcomes = [_outcome(job, slot, described, handed) for job, described in pairs]
        _close_all(descriptors)
        self._largest = max(self._largest, slot.size // len(group))
        self._largest_group = max(self._largest_group, slot.size)
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
        for _, received in filter(lambda each: each[0] is worker, self._arrived):
            _close_all(received[1] if received else ())
        self._arrived = deque(each for each in self._arrived if each[0] is not worker)
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


def at_once(largest: int) -> int:
    """Return how many replies may be in memory at once if the largest so far had that many bytes."""
    if largest > _LARGE_BYTES:
        return 1
    return min(_SLOTS, max(_FEW_SLOTS, _WAITING_BYTES // max(1, largest)))


def _close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _received(worker: WorkerHandle) -> list[channel.Received | None]:
    """Return what a worker has sent; None at the end if it is gone."""
    try:
        return list(worker.reader.read())
    except channel.Closed:
        return [None]


def _put(slot: SharedMemory, start: int, data: bytes, state: bytes) -> int:
    """Write what describes a message, and its client's state, into a slot; return where they end."""
    whole = data + state
    if whole:
        slot.view(start + len(whole))[start : start + len(whole)] = whole
    return start + len(whole)


def _release(worker: WorkerHandle) -> None:
    worker.connection.close()
    for memory in (*worker.slots, worker.progress.memory):
        memory.close()


def _outcome(job: Job, slot: SharedMemory, described: dict[str, Any], handed: Iterator[int]) -> Outcome:
    if "error" in described:
        return Outcome(job, Error(*described["error"]))
    return Outcome(job, *read_reply(slot, described, handed))

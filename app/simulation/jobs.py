"""The queue of messages: what a job is, how it ends, and which one is next."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from flwr.app import Error, Message, RecordDict


@dataclass(eq=False)
class Job:
    """A message to be worked on.

    `abandoned` says that the reply is no longer waited for; `began` is when a worker began with it, by the
    clock `time.monotonic`, None while it waits.
    """

    message: Message
    abandoned: bool = False
    began: float | None = None

    @property
    def message_id(self) -> str:
        """The id that the caller knows it by."""
        return self.message.metadata.message_id

    @property
    def node_id(self) -> int:
        """The node that it is for."""
        return self.message.metadata.dst_node_id


@dataclass(frozen=True)
class Outcome:
    """How a job ended: with the client's answer, or the reason that there is none.

    `job` is None if an idle worker died; `new_state` is None if the client's state did not change;
    `unstarted` are further jobs of a worker that died, for another one.
    """

    job: Job | None
    answer: RecordDict | Error
    new_state: bytes | None = None
    unstarted: tuple[Job, ...] = ()


class JobQueue:
    """Jobs in order, one per node at a time: a client's second message sees the state that the first left."""

    def __init__(self) -> None:
        self._pending: deque[Job] = deque()
        self._blocked: dict[int, deque[Job]] = {}
        self._busy: set[int] = set()

    def __len__(self) -> int:
        return len(self._pending)

    def append(self, job: Job) -> None:
        """Put a job at the end."""
        self._pending.append(job)

    def take(self) -> Job | None:
        """Return the first job that can start; its node is busy until `end` or `put_back`."""
        while self._pending:
            job = self._pending.popleft()
            if job.abandoned:
                continue
            if job.node_id not in self._busy:
                self._busy.add(job.node_id)
                return job
            self._blocked.setdefault(job.node_id, deque()).append(job)
        return None

    def end(self, job: Job) -> None:
        """Note that a job is over; the next one of its node comes first now."""
        self._busy.discard(job.node_id)
        self._pending.extendleft(reversed(self._blocked.pop(job.node_id, deque())))

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Put jobs that did not start after all back to the front, in their order."""
        for job in reversed(jobs):
            job.began = None
            self.end(job)
            self._pending.appendleft(job)

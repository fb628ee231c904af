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


Group = tuple[Job, ...]
"""Jobs that a worker is given together; mostly a single one."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended: with the client's answer, or the reason that there is none.

    `job` is None if an idle worker died, or one with several jobs, of which nobody knows the culprit;
    `new_state` is None if the client's state did not change; `unstarted` are further jobs of a worker that
    died, for another one.
    """

    job: Job | None
    answer: RecordDict | Error
    new_state: bytes | None = None
    unstarted: tuple[Group, ...] = ()


class JobQueue:
    """Groups of jobs in order, one job per node at a time.

    A client's second message sees the state that the first left. A group starts when all its nodes are free.
    """

    def __init__(self) -> None:
        self._pending: deque[Group] = deque()
        self._busy: set[int] = set()

    def __len__(self) -> int:
        return len(self._pending)

    def append(self, group: Group) -> None:
        """Put a group at the end; its nodes are different ones."""
        self._pending.append(group)

    def take(self) -> Group | None:
        """Return the first group that can start; its nodes are busy until `end` or `put_back`."""
        waiting: list[Group] = []
        claimed = set(self._busy)
        try:
            while self._pending:
                group = tuple(job for job in self._pending.popleft() if not job.abandoned)
                nodes = {job.node_id for job in group}
                if group and claimed.isdisjoint(nodes):
                    self._busy |= nodes
                    return group
                claimed |= nodes
                waiting += [group] if group else []
            return None
        finally:
            self._pending.extendleft(reversed(waiting))

    def end(self, job: Job) -> None:
        """Note that a job is over."""
        self._busy.discard(job.node_id)

    def put_back(self, groups: Sequence[Group]) -> None:
        """Put groups that did not start after all back to the front, in their order."""
        for group in reversed(groups):
            for job in group:
                job.began = None
                self.end(job)
            self._pending.appendleft(group)


def singly(group: Group) -> tuple[Group, ...]:
    """Return the jobs of a group as groups of one."""
    return tuple((job,) for job in group)

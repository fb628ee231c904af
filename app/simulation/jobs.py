"""The queue of messages: what a job is, how it ends, and which one is next."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.common.serde_utils import metadata_to_proto

from app.messages.codec import dump_small
from strategies.core import wire


@dataclass(eq=False)
class Parcel:
    """What messages have in common that differ in their ids and nodes only, prepared once.

    Parameters
    ----------
    first
        One of them, not changed any more.
    """

    first: Message

    @property
    def content(self) -> RecordDict:
        """The content of all."""
        return self.first.content

    @cached_property
    def metadata(self) -> bytes:
        """The metadata of the first."""
        proto: bytes = metadata_to_proto(self.first.metadata).SerializeToString()
        return proto

    @cached_property
    def reply(self) -> Message:
        """A reply to the first, without content."""
        return Message(RecordDict(), reply_to=self.first)

    @staticmethod
    def key(message: Message) -> tuple[object, ...]:
        """Return what is the same of messages that have a parcel in common, as long as they are there."""
        metadata = message.metadata
        return id(message.content), metadata.message_type, metadata.group_id, metadata.ttl

    @cached_property
    def arrays(self) -> dict[str, ArrayRecord]:
        """The records of arrays, by name."""
        return {name: r for name, r in self.content.items() if isinstance(r, ArrayRecord)}

    def small(self, elsewhere: Iterable[str]) -> bytes:
        """Return the other records as bytes; `elsewhere` names those that travel as vectors."""
        gone = frozenset(elsewhere)
        if gone not in self._small:
            rest = {name: record for name, record in self.content.items() if name not in gone}
            self._small[gone] = dump_small(RecordDict(rest))
        return self._small[gone]

    @cached_property
    def _small(self) -> dict[frozenset[str], bytes]:
        return {}


@dataclass(eq=False)
class Job:
    """A message to be worked on.

    `message_id` is the id that the caller knows it by, `node_id` the node that it is for; `abandoned` says
    that the reply is no longer waited for; `began` is when a worker began with it, by the clock
    `time.monotonic`, None while it waits; `alone` is why its training is a group of its own, empty if it is
    not, or if nothing was to be in groups.
    """

    message: Message
    parcel: Parcel
    message_id: str = field(init=False)
    node_id: int = field(init=False)
    abandoned: bool = False
    began: float | None = None
    alone: str = ""

    def __post_init__(self) -> None:
        """Look up the ids, which are asked for again and again."""
        metadata = self.message.metadata
        self.message_id, self.node_id = metadata.message_id, metadata.dst_node_id

    def reply(self, answer: RecordDict | Error) -> Message:
        """Return the client's reply."""
        ids = {"message_id": f"{self.message_id}-reply", "reply_to_message_id": self.message_id}
        return wire.twin(self.parcel.reply, answer, src_node_id=self.node_id, **ids)


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

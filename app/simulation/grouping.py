"""Which messages are given to a worker together, so that their clients train side by side.

Groups depend on the messages that are sent together and on these settings alone, not on the number of workers
nor on what is done when: so a run gives the same model with any number of workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flwr.app import Message, MessageType

from app.simulation.jobs import Group, Job
from strategies.core import wire

_PARTS = 8
"""Groups of a cohort at least, where there are enough clients: work for several workers."""


@dataclass(frozen=True)
class Grouping:
    """How many messages a group has.

    Parameters
    ----------
    most
        Messages at most; 1: there are no groups.
    most_bytes
        Bytes of all models of a group, as they were sent, at most; 0: however many.
    where_faster
        Whether clients train side by side only where that is known to be faster; a cohort is parted into
        several groups then.
    """

    most: int = 1
    most_bytes: int = 0
    where_faster: bool = False

    @staticmethod
    def of(vectorise: str, device: str, memory: int = 0) -> "Grouping":
        """Return the grouping that ``run.vectorise`` names, for clients that compute on a type of device.

        `memory` are the bytes of a GPU, all of them, free or not: so a resumed run has the same groups.
        Should a group not fit after all, its clients train in halves.
        """
        if vectorise == "off":
            return Grouping()
        if vectorise != "auto":
            return Grouping(int(vectorise))
        if device == "cpu":
            return _ON_CPU
        return Grouping(_MOST_ON_GPU, memory // _PER_GPU or _UNKNOWN_GPU, where_faster=True)

    def groups(self, jobs: Sequence[Job]) -> list[Group]:
        """Return the jobs in groups, in their order; a training that is by itself is told why."""
        if self.most == 1:
            return [(job,) for job in jobs]
        found: list[Group] = []
        for alike in _alike(jobs):
            if not _trains(alike[0].message):
                found += [(job,) for job in alike]
                continue
            fitting = self._fitting(alike[0].message)
            size = min(fitting, -(-len(alike) // _PARTS)) if self.where_faster else fitting
            groups = [tuple(alike[first : first + size]) for first in range(0, len(alike), size)]
            for job in (group[0] for group in groups if len(group) == 1):
                job.alone = _why_alone(len(alike), fitting, size)
            found += groups
        return found

    def _fitting(self, message: Message) -> int:
        """Return how many messages like one fit into a group."""
        if not self.most_bytes:
            return self.most
        return max(1, min(self.most, self.most_bytes // max(wire.records_bytes(message.content), 1)))


def _alike(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return the jobs in runs of one type of message, with no node twice in a run."""
    runs: list[list[Job]] = []
    nodes: set[int] = set()
    for job in jobs:
        kind = job.message.metadata.message_type
        if not runs or runs[-1][0].message.metadata.message_type != kind or job.node_id in nodes:
            runs.append([])
            nodes.clear()
        runs[-1].append(job)
        nodes.add(job.node_id)
    return runs


def _why_alone(asked: int, fitting: int, size: int) -> str:
    """Return why a training is a group of its own, of so many that were asked together."""
    if asked == 1:
        return "no other client was asked with it"
    if fitting == 1:
        return "two models as large as this one are too many for a group"
    if size == 1:
        return f"{_PARTS} clients or fewer in a round are a group each, so that all workers have work"
    return "no other client was left for its group"


def _trains(message: Message) -> bool:
    return message.metadata.message_type.partition(".")[0] == MessageType.TRAIN


_ON_CPU = Grouping(64, 2**23, where_faster=True)
"""What ``auto`` is on a CPU: so many models that they stay in a core's cache."""
_MOST_ON_GPU = 256
_PER_GPU = 32
"""How many times the models of a group, as they were sent, a GPU has room for: eight times, with gradients,
what the optimiser keeps, and activations, in each of four workers."""
_UNKNOWN_GPU = 2**30

"""The members of a federation: the node behind each client-id, and each client's description."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TypeGuard

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from strategies.core import wire
from strategies.server.guard import first_line


@dataclass(frozen=True)
class ClientInfo:
    """A client's description of itself; a client that hides its counts says 1 example and no labels.

    `num_test` are the test examples that came with its own data, besides what it holds out of these.
    """

    client_id: str
    node_id: int
    num_examples: int
    label_counts: tuple[int, ...] = ()
    num_partitions: int = 0
    keep: float | None = None
    hidden: bool = False
    num_test: int = 0

    @property
    def known_examples(self) -> int | None:
        """Number of examples; None where the client does not tell."""
        return None if self.hidden else self.num_examples

    def least_of(self, classes: Iterable[int]) -> int:
        """Return how many of its examples are of some classes at least, by its labels.

        All that have the labels, where each example has one; the labels of one example may overlap else.

        Examples
        --------
        >>> one, several = ClientInfo("a", 1, 5, (2, 3)), ClientInfo("b", 2, 4, (2, 3))
        >>> one.least_of((0, 1)), several.least_of((0, 1))
        (5, 3)
        """
        counts = [self.label_counts[c] for c in classes if c < len(self.label_counts)]
        overlap = sum(self.label_counts) != self.num_examples
        return max(counts, default=0) if overlap else sum(counts)


_LONGEST_DETAIL = 1000
_LONGEST_WAIT = 16
"""Looks between two questions to a node that was refused: first 1, then twice as many each time."""


@dataclass(frozen=True)
class Refusal:
    """The reason why a node is not a client now, and when it is asked again.

    Parameters
    ----------
    owner
        The node that uses the client-id; asked again once that is gone. None: it is something else.
    look
        The look from which on it is asked again; infinite where nothing can change.
    """

    reason: str
    owner: int | None
    look: float
    tries: int


@dataclass
class FederationMembers:
    """Binds each client-id to the node that first used it.

    A node that is refused is asked again: as soon as the owner of its client-id is gone, or, where its data
    or its description were at fault, after 1, 2, 4, … and at most 16 looks. In a simulation a partition stays
    what it is, and a refusal for its data is final.

    Attributes
    ----------
    nodes
        Node id -> client-id.
    clients
        Client-id -> what the client said.
    refused
        Nodes that are no clients now.
    looks
        How often was looked for clients; its owner counts.
    former
        Client-id -> the node that had it before this life of the server. While that node is there, no other
        can have the client-id.
    changes
        How often a client was entered.
    """

    nodes: dict[int, str] = field(default_factory=dict)
    clients: dict[str, ClientInfo] = field(default_factory=dict)
    refused: dict[int, Refusal] = field(default_factory=dict)
    looks: int = 0
    former: dict[str, int] = field(default_factory=dict)
    changes: int = 0

    def unknown(self, present: Iterable[int]) -> list[int]:
        """Return those of the nodes that have not been entered or refused."""
        known = self.nodes.keys() | self.refused.keys()
        return [node_id for node_id in present if node_id not in known]

    def due(self, present: Iterable[int]) -> list[int]:
        """Return the nodes to ask who they are: the unknown, and the refused that are due."""
        there = dict.fromkeys(present)
        again = [i for i in there if (refusal := self.refused.get(i)) and self._is_due(refusal, there)]
        return self.unknown(there) + again

    def _is_due(self, refusal: Refusal, present: Collection[int]) -> bool:
        return refusal.owner not in present if refusal.owner is not None else self.looks >= refusal.look

    def enter(self, node_id: int, client_id: str, content: RecordDict, present: Collection[int]) -> str:
        """Enter a client as it describes itself; return why it is refused, or nothing.

        Parameters
        ----------
        present
            The nodes that are there, best as a set: a client-id is free when its node is gone.
        """
        metrics = content.metric_records.get(wire.METRICS, MetricRecord())
        config = content.config_records.get(wire.CONFIG, ConfigRecord())
        num_examples = metrics.get(wire.NUM_EXAMPLES, 0)
        labels, partitions = metrics.get(wire.LABEL_COUNTS, []), config.get(wire.NUM_PARTITIONS, 0)
        num_test = metrics.get(wire.NUM_TEST, 0)
        owner = self._owner(node_id, client_id, present)
        reason = _reason(node_id, client_id, owner) or _impossible(num_examples, labels, config)
        if reason or not isinstance(num_examples, int):
            self.refuse(node_id, reason, owner, final=_is_count(partitions) and partitions > 0)
            return reason
        self.refused.pop(node_id, None)
        if (holder := self.clients.get(client_id)) is not None:
            self.nodes.pop(holder.node_id, None)
        self.nodes[node_id] = client_id
        self.changes += 1
        self.clients[client_id] = ClientInfo(
            client_id,
            node_id,
            num_examples,
            tuple(n for n in labels if _is_count(n)) if isinstance(labels, list) else (),
            partitions if _is_count(partitions) else 0,
            _share(config.get(wire.KEEP)),
            bool(config.get(wire.HIDDEN, False)),
            min(num_test, wire.MAX_EXAMPLES) if _is_count(num_test) else 0,
        )
        return ""

    def refuse(self, node_id: int, reason: str, owner: int | None = None, *, final: bool = False) -> None:
        """Refuse a node for now; see `Refusal`."""
        before = self.refused.get(node_id)
        tries = 0 if before is None else before.tries
        wait = math.inf if final else min(2**tries, _LONGEST_WAIT)
        self.refused[node_id] = Refusal(reason, owner, self.looks + wait, tries + 1)

    def _owner(self, node_id: int, client_id: str, present: Collection[int]) -> int | None:
        """Return the other node that uses a client-id and is there."""
        holder = self.clients.get(client_id)
        owner = self.former.get(client_id) if holder is None else holder.node_id
        return None if owner == node_id or owner not in present else owner


def _reason(node_id: int, client_id: str, owner: int | None) -> str:
    """Return why a node cannot have a client-id; empty if it can."""
    if fault := wire.client_id_fault(client_id):
        return f"its client-id {fault}"
    return "" if owner is None else f"node {node_id} claims a client-id that node {owner} uses"


def _impossible(num_examples: object, labels: object, config: ConfigRecord) -> str:
    """Return what is wrong with a client's numbers of examples; empty if they are possible."""
    if not isinstance(num_examples, int) or num_examples <= 0:
        said = str(config.get(wire.DETAIL, ""))
        return first_line(said, _LONGEST_DETAIL) if said else "it has no examples"
    if num_examples > wire.MAX_EXAMPLES:
        return f"it says that it has {num_examples} examples, at most {wire.MAX_EXAMPLES} are possible"
    counts = [n for n in labels if _is_count(n)] if isinstance(labels, list) else []
    if max(counts, default=0) > num_examples:
        return f"it says that it has {num_examples} examples, and {max(counts)} of one class"
    return ""


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and value >= 0


def _share(value: object) -> float | None:
    """Return a client's share if it is in (0, 1], else None."""
    return float(value) if isinstance(value, int | float) and 0 < value <= 1 else None

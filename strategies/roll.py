"""Who is who in a federation: the node behind each client-id, and what clients say of themselves."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeGuard

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from strategies import wire


@dataclass(frozen=True)
class ClientInfo:
    """What a client said about itself; where it hides its counts, it says 1 example and no labels."""

    client_id: str
    node_id: int
    num_examples: int
    label_counts: tuple[int, ...] = ()
    num_partitions: int = 0
    keep: float | None = None
    hidden: bool = False

    @property
    def known_examples(self) -> int | None:
        """Number of examples; None where the client does not tell."""
        return None if self.hidden else self.num_examples


@dataclass
class Roll:
    """Binds each client-id to the node that first used it.

    Attributes
    ----------
    nodes
        Node id -> client-id.
    clients
        Client-id -> what the client said.
    refused
        Nodes that are no clients.
    former
        Client-id -> the node that had it before this life of the server. While that node is there, no other
        can have the client-id.
    """

    nodes: dict[int, str] = field(default_factory=dict)
    clients: dict[str, ClientInfo] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    former: dict[str, int] = field(default_factory=dict)

    def unknown(self, present: Iterable[int]) -> list[int]:
        """Return those of the nodes that have not been entered or refused."""
        known = self.nodes.keys() | self.refused
        return [node_id for node_id in present if node_id not in known]

    def enter(self, node_id: int, client_id: str, content: RecordDict, present: Iterable[int]) -> str:
        """Enter a client as it describes itself; return why it is refused, or nothing.

        Parameters
        ----------
        node_id, client_id
            Who says so.
        content
            The answer to the question who it is.
        present
            The nodes that are there: a client-id is free when its node is gone.
        """
        metrics = content.metric_records.get(wire.METRICS, MetricRecord())
        config = content.config_records.get(wire.CONFIG, ConfigRecord())
        num_examples = metrics.get(wire.NUM_EXAMPLES, 0)
        reason = f"its client-id {fault}" if (fault := wire.client_id_fault(client_id)) else ""
        reason = reason or self._taken(node_id, client_id, present) or _impossible(num_examples, config)
        if reason or not isinstance(num_examples, int):
            self.refused.add(node_id)
            return reason
        if (holder := self.clients.get(client_id)) is not None:
            self.nodes.pop(holder.node_id, None)
        labels, told = metrics.get(wire.LABEL_COUNTS, []), config.get(wire.NUM_PARTITIONS, 0)
        self.nodes[node_id] = client_id
        self.clients[client_id] = ClientInfo(
            client_id,
            node_id,
            num_examples,
            tuple(n for n in labels if _is_count(n)) if isinstance(labels, list) else (),
            told if _is_count(told) else 0,
            _share(config.get(wire.KEEP)),
            bool(config.get(wire.HIDDEN, False)),
        )
        return ""

    def _taken(self, node_id: int, client_id: str, present: Iterable[int]) -> str:
        holder = self.clients.get(client_id)
        owner = self.former.get(client_id) if holder is None else holder.node_id
        if owner is None or owner == node_id or owner not in set(present):
            return ""
        return f"node {node_id} claims a client-id that node {owner} uses"


def _impossible(num_examples: object, config: ConfigRecord) -> str:
    """Return what is wrong with the number of examples that a client told; nothing if it is possible."""
    if not isinstance(num_examples, int) or num_examples <= 0:
        return str(config.get(wire.DETAIL, "")) or "it has no examples"
    if num_examples > wire.MAX_EXAMPLES:
        return f"it says that it has {num_examples} examples, at most {wire.MAX_EXAMPLES} are possible"
    return ""


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and value >= 0


def _share(value: object) -> float | None:
    """Return a share in (0, 1] that a client told; None if it told none that can be used."""
    return float(value) if isinstance(value, int | float) and 0 < value <= 1 else None

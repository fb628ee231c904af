"""The clients of a federation, reached over any Flower `Grid`: their ids, their replies and their faults.

A `Cohort` binds each client-id to the node that first used it, hands replies on one at a time as they arrive,
and records every client that does not answer usefully. It works the same over the project's own grid,
Flower's simulation and a deployed federation.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.models.mask import pack
from strategies.server.exclusion import Drop
from strategies.server.grids import CancellingGrid, QueueingGrid
from strategies.server.guard import error_line, first_line
from strategies.server.members import ClientInfo, FederationMembers

_PAUSE_SHARE = 0.01
"""Of the time since the last reply: so long is the pause between two looks."""
_LONGEST_PAUSE = 0.5
_CLOCK_SECONDS = 10.0
"""Twice what a node's clock may be ahead: a SuperLink that authenticates nodes refuses it from 5 s on."""


@dataclass(frozen=True)
class Fault:
    """A client that did not answer usefully: in what, and why."""

    client_id: str
    scope: str
    reason: str


@dataclass
class Traffic:
    """Bytes of arrays and numbers both ways, and how many messages clients worked on."""

    bytes_down: int = 0
    bytes_up: int = 0
    visits: int = 0

    def copy(self) -> "Traffic":
        """Return a copy."""
        return Traffic(self.bytes_down, self.bytes_up, self.visits)

    def add(self, more: "Traffic") -> None:
        """Count more traffic."""
        self.bytes_down += more.bytes_down
        self.bytes_up += more.bytes_up
        self.visits += more.visits

    def since(self, earlier: "Traffic") -> "Traffic":
        """Return what was added since an earlier copy."""
        return Traffic(
            self.bytes_down - earlier.bytes_down,
            self.bytes_up - earlier.bytes_up,
            self.visits - earlier.visits,
        )


@dataclass(frozen=True)
class Reply:
    """A usable answer of a client."""

    client_id: str
    message: Message


OnAnswer = Callable[[str, int, int], None]
"""Called with an exchange's scope, how many nodes have answered, usefully or not, and how many were asked."""


@dataclass(frozen=True)
class _Asked:
    """A node that was asked who it is, and when the question expires."""

    node_id: int
    until: float


@dataclass
class _Shared:
    """The state that all views of one federation share."""

    members: FederationMembers = field(default_factory=FederationMembers)
    asked: dict[str, _Asked] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    traffic: Traffic = field(default_factory=Traffic)
    turns: Counter[str] = field(default_factory=Counter)
    client_config: dict[str, wire.ConfigValue] = field(default_factory=dict)
    on_answer: OnAnswer | None = None


class Cohort:
    """The clients behind a grid, or some of them.

    Parameters
    ----------
    poll_seconds
        Shortest pause between two looks for replies when there was none.

    Attributes
    ----------
    mask : Tensor or None
        Which parameters may differ from zero, see `masked`.
    """

    def __init__(self, grid: Grid, timeout: float = 600.0, poll_seconds: float = 0.02) -> None:
        self.grid = grid
        self._queue = grid if isinstance(grid, QueueingGrid) else None
        self.timeout = timeout
        self.poll_seconds = poll_seconds
        self.mask: Tensor | None = None
        self._shared = _Shared()
        self._excluded: frozenset[str] = frozenset()
        self._only: tuple[Callable[[str], bool], ...] = ()
        self._drops: tuple[Drop, ...] = ()
        self._view_config: Mapping[str, int | bytes | str] = {}
        self._listed: tuple[int, Mapping[str, ClientInfo]] | None = None

    @property
    def client_config(self) -> dict[str, wire.ConfigValue]:
        """Entries for every message: what clients must know of the model besides the run config."""
        return self._shared.client_config

    def tell(self, on_answer: OnAnswer) -> None:
        """Call `on_answer` for every answer to an exchange, in all views of the federation."""
        self._shared.on_answer = on_answer

    @property
    def message_config(self) -> dict[str, wire.ConfigValue]:
        """The entries of every message of this view: `client_config`, the mask, the seed, the lineage."""
        return {**self.client_config, **self._view_config}

    @property
    def clients(self) -> Mapping[str, ClientInfo]:
        """The clients of this view by client-id, in the order of `client_sort_key`."""
        changes = self._shared.members.changes
        if self._listed is None or self._listed[0] != changes:
            self._listed = changes, MappingProxyType(self._list())
        return self._listed[1]

    def _list(self) -> dict[str, ClientInfo]:
        everybody = self._shared.members.clients
        known = (
            i
            for i, info in everybody.items()
            if i not in self._excluded
            and all(belongs(i) for belongs in self._only)
            and not any(drop.takes_all(info) for drop in self._drops)
        )
        return {i: everybody[i] for i in sorted(known, key=wire.client_sort_key)}

    @property
    def nodes(self) -> dict[str, int]:
        """The node behind each client-id of the whole federation."""
        return {client_id: info.node_id for client_id, info in self._shared.members.clients.items()}

    def names(self) -> dict[int, str]:
        """Return the client-id behind each node of this view."""
        return {info.node_id: info.client_id for info in self.clients.values()}

    def recall(self, nodes: Mapping[str, int]) -> None:
        """Keep client-ids for the nodes that had them before this life of the server.

        While such a node is there, no other can have its client-id.
        """
        self._shared.members.former.update(nodes)

    @property
    def faults(self) -> list[Fault]:
        """Everything that went wrong with clients so far."""
        return self._shared.faults

    @property
    def traffic(self) -> Traffic:
        """Bytes and visits so far."""
        return self._shared.traffic

    @property
    def turns(self) -> Counter[str]:
        """How often each client had to answer so far, whether it did or not."""
        return self._shared.turns

    def without(self, client_ids: Iterable[str]) -> "Cohort":
        """Return a view of the same federation without some clients."""
        view = self._view()
        view._excluded |= frozenset(client_ids)
        return view

    def only(self, clients: Callable[[str], bool]) -> "Cohort":
        """Return a view of the clients, present or future, of whose client-ids a function says so."""
        view = self._view()
        view._only = (*self._only, clients)
        return view

    def without_emptied(self, drop: Drop) -> "Cohort":
        """Return a view without the clients, present or future, that a drop leaves no example."""
        view = self._view()
        view._drops = (*self._drops, drop)
        return view

    def masked(self, mask: Tensor | None) -> "Cohort":
        """Return a view whose clients keep the pruned weights of every model at zero.

        Parameters
        ----------
        mask
            Shape [P], bool, False where a weight is pruned; None: the view as it is.
        """
        if mask is None:
            return self
        view = self._view_with({wire.MASK: pack(mask)})
        view.mask = mask
        return view

    def seeded(self, seed: int) -> "Cohort":
        """Return a view whose clients draw from another seed than the run's; their data stay the same."""
        return self._view_with({wire.SEED: seed})

    def on_lineage(self, name: str) -> "Cohort":
        """Return a view whose clients work on the models that they keep for another lineage."""
        return self._view_with({wire.LINEAGE: name})

    def _view_with(self, entries: Mapping[str, int | bytes | str]) -> "Cohort":
        view = self._view()
        view._view_config = {**self._view_config, **entries}
        return view

    def _view(self) -> "Cohort":
        view = Cohort(self.grid, self.timeout, self.poll_seconds)
        view.mask, view._shared = self.mask, self._shared
        view._excluded, view._only, view._drops = self._excluded, self._only, self._drops
        view._view_config = self._view_config
        return view

    def require(self, client_ids: Iterable[str]) -> None:
        """Raise `BadInput` if a client is not known."""
        known = self.clients
        for client_id in client_ids:
            if client_id not in known:
                raise BadInput(f"unknown client '{client_id}'; known clients: {', '.join(known)}")

    def add_fault(self, client_id: str, scope: str, reason: str) -> None:
        """Record that a client did not answer usefully."""
        self._shared.faults.append(Fault(client_id, scope, reason))

    def connect(self, min_clients: int = 1, wait_seconds: float = 60.0) -> None:
        """Wait for nodes, ask each who it is, and bind its client-id to it.

        Raises
        ------
        LetheError
            If fewer clients than that can be used; BadInput if none can, all for one reason.
        """
        began = time.monotonic()
        deadline = began + wait_seconds
        while len(list(self.grid.get_node_ids())) < min_clients and time.monotonic() < deadline:
            time.sleep(self.poll_seconds)
        self._look("connect")
        while len(self.clients) < min_clients and self._unknown() and time.monotonic() < deadline:
            time.sleep(self.poll_seconds)
            self._look("connect")  # Nodes without an answer may still have been starting
        said = {fault.reason for fault in self.faults}
        if not self.clients and len(self.faults) > 1 and len(said) == 1 and not self._unknown():
            raise BadInput(f"every client says: {said.pop()}")
        if len(self.clients) < min_clients:
            reasons = "; ".join(f"client {f.client_id}: {f.reason}" for f in self.faults[:3])
            raise LetheError(
                f"{len(self.clients)} usable clients after {time.monotonic() - began:.3g} s, "
                f"needed {min_clients}" + (f" ({reasons})" if reasons else "")
            )

    def refresh(self, scope: str) -> None:
        """Ask new nodes who they are, and some that were refused.

        A node that is asked for the first time is waited for. One that did not answer in time, or was refused
        (see `FederationMembers`), is asked again from time to time, and no round waits for its answer.
        """
        self._shared.members.looks += 1
        self._look(scope)

    def _look(self, scope: str) -> None:
        due = dict.fromkeys(self._shared.members.due(self.grid.get_node_ids()))
        self._give_up(i for i, asked in self._asked.items() if asked.node_id not in due)
        awaited = self._ask_who(due, scope)
        sent = time.monotonic()
        replies: list[Reply] = []
        while self._asked:
            late = self.overdue(self._asked, sent)
            arrived = self._who_answered(replies, scope)
            awaited -= arrived
            if not awaited:
                break
            if not arrived and late:
                awaited -= self._silent(awaited.intersection(late), scope)
            elif not arrived:
                self._pause(time.monotonic() - sent)
        present = frozenset(self.grid.get_node_ids()) if replies else frozenset()
        for reply in sorted(replies, key=lambda r: r.message.metadata.src_node_id):
            self._bind(reply, present, scope)

    def _silent(self, message_ids: set[str], scope: str) -> set[str]:
        """Record that nodes did not say who they are, and return the questions; on a queue, free workers."""
        for node_id in {self._asked[i].node_id for i in message_ids}:
            self.add_fault(self._name(node_id), scope, self.silence)
            if self.has_queue:
                self._shared.members.refuse(node_id, self.silence)
        if self.has_queue:
            self._give_up(message_ids)
        return message_ids

    @property
    def _asked(self) -> dict[str, _Asked]:
        return self._shared.asked

    def _ask_who(self, nodes: Collection[int], scope: str) -> set[str]:
        """Ask the nodes that have no open question; return the messages to those asked for the first time."""
        now = time.monotonic()
        known = {asked.node_id for asked in self._asked.values()}
        expired = [i for i, asked in self._asked.items() if asked.until < now]
        self._give_up(expired)
        awaited = {asked.node_id for asked in self._asked.values()}
        content = self._addressed(RecordDict())
        due = [node_id for node_id in sorted(nodes) if node_id not in awaited]
        sent = self.push([Message(content, node_id, wire.DESCRIBE) for node_id in due], scope) if due else {}
        for message_id, node_id in sent.items():
            self._asked[message_id] = _Asked(node_id, now + self._message_seconds)
        asked_before = known | self._shared.members.refused.keys()
        return {message_id for message_id, node_id in sent.items() if node_id not in asked_before}

    def _who_answered(self, replies: list[Reply], scope: str) -> set[str]:
        """Add the usable replies that have arrived; return the messages that all of them answer."""
        arrived = set()
        for message in self._pulled(self._asked):
            message_id = message.metadata.reply_to_message_id
            asked = self._asked.pop(message_id, None)
            if asked is not None and (reply := self.usable(message, asked.node_id, scope)) is not None:
                replies.append(reply)
            arrived.add(message_id)
        return arrived

    def _pulled(self, waiting: Mapping[str, object]) -> Iterable[Message]:
        """Return replies that have arrived; a grid with a queue is spared a copy of all that are awaited."""
        return self.grid.pull_messages(waiting if self.has_queue else list(waiting))

    def _give_up(self, message_ids: Iterable[str]) -> None:
        given_up = list(message_ids)
        for message_id in given_up:
            del self._asked[message_id]
        self.cancel(given_up)

    def _unknown(self) -> list[int]:
        return self._shared.members.unknown(self.grid.get_node_ids())

    def _bind(self, reply: Reply, present: Collection[int], scope: str) -> None:
        message = reply.message
        before = self._shared.members.refused.get(message.metadata.src_node_id)
        reason = self._shared.members.enter(
            message.metadata.src_node_id, reply.client_id, message.content, present
        )
        if reason and (before is None or before.reason != reason):
            possible = not wire.client_id_fault(reply.client_id)
            node_id = message.metadata.src_node_id
            self.add_fault(reply.client_id if possible else self._name(node_id), scope, reason)

    def ask(
        self,
        message_type: str,
        content: RecordDict | Callable[[str], RecordDict],
        client_ids: Sequence[str] | None = None,
        scope: str = "",
    ) -> Iterator[Reply]:
        """Send one message to each client and yield the usable replies as they arrive.

        Parameters
        ----------
        content
            The same for all, or a function of the client-id.
        client_ids
            Whom to ask; None for all of this view.
        scope
            Names the exchange in the list of faults.
        """
        clients = self.clients
        chosen = list(clients) if client_ids is None else client_ids
        messages = (
            Message(
                self._addressed(content(i) if callable(content) else content),
                clients[i].node_id,
                message_type,
            )
            for i in chosen
        )
        return self.exchange(messages, scope or message_type)

    def _addressed(self, content: RecordDict) -> RecordDict:
        config = content.get(wire.CONFIG)  # See `wire.add_entries`
        if not isinstance(config, ConfigRecord):
            config = content[wire.CONFIG] = ConfigRecord({})
        for key, value in self.message_config.items():
            config.setdefault(key, value)
        return content

    def exchange(self, messages: Iterable[Message], scope: str) -> Iterator[Reply]:
        """Push messages and yield the usable replies one at a time; record a fault for each of the others.

        A reply is usable if it carries content and the client-id that its node is bound to.
        """
        waiting = self.push(messages, scope)
        total = len(waiting)
        self._tell(scope, 0, total)
        quiet_since = sent = time.monotonic()
        try:
            while waiting:
                now = time.monotonic()
                late = self.overdue(waiting, sent)  # Before the look: replies that arrive during it count
                arrived = 0
                for message in self._pulled(waiting):
                    arrived += 1
                    node_id = waiting.pop(message.metadata.reply_to_message_id, None)
                    self._tell(scope, total - len(waiting), total)
                    if node_id is not None and (reply := self.usable(message, node_id, scope)) is not None:
                        yield reply
                if arrived:
                    quiet_since = now
                elif late:
                    for message_id in late:
                        self.add_fault(self._name(waiting.pop(message_id)), scope, self.silence)
                    self.cancel(late)
                else:
                    self._pause(now - quiet_since)
        finally:
            self.cancel(list(waiting))

    def overdue(self, message_ids: Iterable[str], sent: float) -> list[str]:
        """Return the messages whose time is up.

        Parameters
        ----------
        message_ids
            Of messages that are not answered.
        sent
            When they were sent, by the clock `time.monotonic`; on a grid with a queue the time of each begins
            when a worker takes it.
        """
        now = time.monotonic()
        if self._queue is not None:
            return [i for i, began in self._queue.begun(message_ids).items() if now - began >= self.timeout]
        return list(message_ids) if now - sent >= self.timeout else []

    @property
    def has_queue(self) -> bool:
        """Whether messages wait in a queue for workers, which a client that hangs would block."""
        return self._queue is not None

    @property
    def silence(self) -> str:
        """The fault of a client that did not answer in time."""
        return f"no answer in {self.timeout:g} s"

    def _tell(self, scope: str, answered: int, asked: int) -> None:
        if self._shared.on_answer is not None:
            self._shared.on_answer(scope, answered, asked)

    def _pause(self, waited: float) -> None:
        """Sleep between two looks: the longer the wait has been, the less a moment matters."""
        time.sleep(max(self.poll_seconds, min(_PAUSE_SHARE * waited, _LONGEST_PAUSE)))

    def push(self, messages: Iterable[Message], scope: str) -> dict[str, int]:
        """Send messages; return the node of each that was accepted, by message id. The others are faults.

        A message expires once its answer no longer counts.
        """
        sent = list(messages)
        for message in [] if self.has_queue else sent:
            message.metadata.ttl = self._message_seconds
        waiting: dict[str, int] = {}
        for message, message_id in zip(sent, self.grid.push_messages(sent), strict=True):
            node_id = message.metadata.dst_node_id
            self.turns[self._name(node_id)] += 1
            if not message_id:
                self.add_fault(self._name(node_id), scope, "the message was not accepted: the node is gone")
                continue
            waiting[message_id] = node_id
        self._shared.traffic.bytes_down += _total_bytes(sent)
        return waiting

    def cancel(self, message_ids: Sequence[str]) -> None:
        """Cancel messages on a grid that can."""
        if message_ids and isinstance(self.grid, CancellingGrid):
            self.grid.cancel(message_ids)

    @property
    def _message_seconds(self) -> float:
        """How long a message is valid: the timeout, and a margin for clocks that differ."""
        return self.timeout + _CLOCK_SECONDS

    def usable(self, message: Message, node_id: int, scope: str) -> Reply | None:
        """Return a reply with content and the client-id that its node is bound to; else note a fault."""
        self._shared.traffic.visits += 1
        if message.has_error():
            self.add_fault(self._name(node_id), scope, error_line(message.error.reason))
            return None
        self._shared.traffic.bytes_up += wire.records_bytes(message.content)
        claimed = wire.client_id_in(message.content)
        bound = self._shared.members.nodes.get(node_id)
        if claimed is None or (bound is not None and claimed != bound):
            shown = first_line(str(claimed), 64)
            self.add_fault(self._name(node_id), scope, f"claims client-id '{shown}', which is not its own")
            return None
        return Reply(claimed, message)

    def _name(self, node_id: int) -> str:
        return self._shared.members.nodes.get(node_id, f"node {node_id}")


def _total_bytes(messages: Sequence[Message]) -> int:
    sizes: dict[int, int] = {}
    for message in messages:
        key = id(message.content)
        if key not in sizes:
            sizes[key] = wire.records_bytes(message.content)
    return sum(sizes[id(m.content)] for m in messages)

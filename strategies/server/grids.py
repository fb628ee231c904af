"""Grids: what they share, one that lists some nodes only, and one that no unfinished reply holds up."""

import heapq
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar, runtime_checkable

import httpx
from flwr.app import Error, Message, Metadata, RecordDict, UserConfigValue
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from strategies.server.members import ClientInfo

_Found = TypeVar("_Found")
_RETRY_SECONDS = 60.0
"""How long a call is repeated while the server fails."""
_RETRY_PAUSE = 0.5
_PULL_PAUSE = 0.02
_PATIENCE = 5.0
"""Seconds that a reply may take to be fetched before others are fetched beside it."""
_LOOKS_PER_CYCLE = 8
"""After so many calls, every reply that is waited for has been looked at."""
_MOST_UNDER_WAY = 16
"""Replies that are fetched at a time, most of which have broken off."""


@runtime_checkable
class CancellingGrid(Protocol):
    """A grid that can give up on messages."""

    def cancel(self, message_ids: Iterable[str]) -> None:
        """Give up on the messages."""


@runtime_checkable
class QueueingGrid(Protocol):
    """A grid on which messages wait for a worker: a client's time begins when one takes its message."""

    def begun(self, message_ids: Iterable[str]) -> Mapping[str, float]:
        """Return when work began on those messages that are worked on, by the clock `time.monotonic`.

        A set or mapping is not copied.
        """


@runtime_checkable
class StatefulGrid(Protocol):
    """A grid that holds what its clients keep between messages, which so belongs into a checkpoint."""

    def client_states(self) -> dict[int, bytes]:
        """Return the states that are not empty, by node id."""

    def state_versions(self) -> dict[int, int]:
        """Return a number for each client that changes with its state, by node id."""

    def restore_client_states(self, states: Mapping[int, bytes]) -> None:
        """Replace all clients' states."""


@runtime_checkable
class StartedGrid(Protocol):
    """A grid that knows with which run config its clients were started."""

    @property
    def started_with(self) -> Mapping[str, UserConfigValue]:
        """The run config."""


@runtime_checkable
class NotingGrid(Protocol):
    """A grid that has something to say about how its clients worked."""

    @property
    def notes(self) -> list[str]:
        """Lines for people."""


def notes_of(grid: Grid) -> list[str]:
    """Return what a grid says about how its clients worked; nothing if it says nothing."""
    return grid.notes if isinstance(grid, NotingGrid) else []


class BaseGrid(Grid):
    """What all grids of this project share: the run, new messages, and waiting for replies."""

    _run = Run.create_empty(0)

    def set_run(self, run: Run) -> None:
        """Set the run information."""
        self._run = run

    @property
    def run(self) -> Run:
        """Run information."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message from the server to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push messages and return the replies in their order; after `timeout` seconds, cancel the rest."""
        ids = list(self.push_messages(messages))
        waiting = {i for i in ids if i}
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        replies: dict[str, Message] = {}
        while waiting and time.monotonic() < deadline:
            for reply in self.pull_messages(list(waiting)):
                replies[reply.metadata.reply_to_message_id] = reply
            if waiting.isdisjoint(replies):
                time.sleep(_PULL_PAUSE)
            waiting -= replies.keys()
        if waiting and isinstance(self, CancellingGrid):
            self.cancel(waiting)
        return [replies[i] for i in ids if i in replies]


class GridWrapper(BaseGrid):
    """A grid that hands everything on to another."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    @property
    def run(self) -> Run:
        """Run information of the grid behind it."""
        return self._grid.run

    def set_run(self, run: Run) -> None:
        """Set the run of the grid behind it."""
        self._grid.set_run(run)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push through the grid behind it."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull through the grid behind it."""
        return self._grid.pull_messages(message_ids)


class CohortGrid(GridWrapper):
    """A grid that lists only the chosen clients' nodes: how selection reaches any strategy.

    Attributes
    ----------
    names
        Node id -> client-id, in the clients' order.
    """

    def __init__(self, grid: Grid, clients: Mapping[str, ClientInfo]) -> None:
        super().__init__(grid)
        self.names = {info.node_id: info.client_id for info in clients.values()}

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes of the chosen clients, in the clients' order."""
        return list(self.names)


def client_ids_of(grid: Grid) -> dict[int, str]:
    """Return a grid's client-ids by node, in its order; node numbers stand in for unknown ids."""
    if isinstance(grid, CohortGrid):
        return dict(grid.names)
    return {node_id: str(node_id) for node_id in grid.get_node_ids()}


def part_of(grid: Grid, names: Mapping[int, str]) -> CohortGrid:
    """Return a grid that lists some nodes only, given as node id -> client-id, in their order."""
    part = CohortGrid(grid, {})
    part.names = dict(names)
    return part


class SteadyGrid(GridWrapper):
    """A grid on which an unfinished reply does not delay the others, and a single error does not end a run.

    Flower's grid fetches all replies that are there before it returns the first, so that all are in memory
    at once; and of a client that died while it sent, it waits minutes for the rest. Here each reply is
    fetched by itself, in a thread that is waited for only a moment, and is returned when it is whole. A busy
    SuperLink answers now and then that its database is locked: it is asked again.

    Parameters
    ----------
    grid
        Flower's. It is called by several threads at a time.
    patience
        Seconds to wait for a fetch before others begin beside it.
    """

    def __init__(self, grid: Grid, patience: float = _PATIENCE) -> None:
        super().__init__(grid)
        self._patience = patience
        self._looks = 0
        self._looked: dict[str, int] = {}
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._abandoned: set[str] = set()
        self._arrived: dict[str, list[Message]] = {}
        self._errors: list[Exception] = []

    def get_node_ids(self) -> list[int]:
        """Return the nodes."""
        return _retried(lambda: list(self._grid.get_node_ids()))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Push through the grid behind it."""
        sent = list(messages)
        return _retried(lambda: list(self._grid.push_messages(sent)))

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that are whole; look for some of the others, the longest neglected first.

        Raises
        ------
        Exception
            What the grid behind it has raised since the last call.
        """
        wanted = list(message_ids)
        for message_id in self._next(wanted):
            self._look(message_id)
        with self._lock:
            if self._errors:
                raise self._errors.pop(0)
            found = [message for i in wanted for message in self._arrived.pop(i, ())]
        for message in found:
            self._looked.pop(message.metadata.reply_to_message_id, None)
        return found

    def cancel(self, message_ids: Iterable[str]) -> None:
        """Give up on the messages; what is still fetched of them is thrown away."""
        with self._lock:
            for message_id in message_ids:
                self._looked.pop(message_id, None)
                self._arrived.pop(message_id, None)
                if message_id in self._under_way:
                    self._abandoned.add(message_id)

    def _next(self, wanted: list[str]) -> list[str]:
        with self._lock:
            idle = [i for i in wanted if i not in self._under_way and i not in self._arrived]
            places = _MOST_UNDER_WAY - len(self._under_way)
        count = max(0, min(places, -(-len(idle) // _LOOKS_PER_CYCLE)))
        return heapq.nsmallest(count, idle, key=lambda i: self._looked.get(i, 0))

    def _look(self, message_id: str) -> None:
        self._looks += 1
        self._looked[message_id] = self._looks
        with self._lock:
            self._under_way.add(message_id)
        thread = threading.Thread(target=self._fetch, args=(message_id,), daemon=True)
        thread.start()
        thread.join(self._patience)

    def _fetch(self, message_id: str) -> None:
        messages: list[Message] = []
        error: Exception | None = None
        try:
            messages = _retried(lambda: list(self._grid.pull_messages([message_id])))
        except (RecursionError, NotImplementedError) as raised:
            messages = [_unreadable(message_id, raised)]
        except (httpx.HTTPError, OSError, RuntimeError) as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001 (what a client sends must not end a run, whatever it is)
            messages = [_unreadable(message_id, raised)]
        with self._lock:
            self._under_way.discard(message_id)
            if message_id in self._abandoned:
                self._abandoned.discard(message_id)
            elif error is not None:
                self._errors.append(error)
            elif messages:
                self._arrived[message_id] = messages


def _unreadable(message_id: str, error: Exception) -> Message:
    """Return an error in place of a reply that Flower cannot read."""
    metadata = Metadata(
        run_id=TaskIdentity.run_id,
        message_id="",
        src_node_id=TaskIdentity.node_id,
        dst_node_id=TaskIdentity.node_id,
        message_type="system",
        group_id="",
        ttl=0.0,
        reply_to_message_id=message_id,
        created_at=time.time(),
    )
    reason = f"the reply cannot be read: {type(error).__name__}: {error}"
    return make_message(metadata=metadata, error=Error(code=ErrorCode.UNKNOWN, reason=reason))


def _retried(call: Callable[[], _Found]) -> _Found:
    """Return what a call returns; repeat it for up to a minute while the server fails."""
    deadline = time.monotonic() + _RETRY_SECONDS
    while True:
        try:
            return call()
        except httpx.HTTPStatusError as error:
            if error.response.status_code < httpx.codes.INTERNAL_SERVER_ERROR or time.monotonic() > deadline:
                raise
        time.sleep(_RETRY_PAUSE)

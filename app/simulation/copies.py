"""Several works on copies of one federation that go on together, on one grid.

The copies have the same clients, each with a state of its own for each copy, as the shadow runs of an audit
do. Every work is written as if it were alone with its federation. It runs in a thread of its own, one at a
time, until it waits for replies; when all wait, the messages of all are given to the workers together. So
clients of several copies can train side by side, and the workers are started once for all.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Generic, TypeVar, final

from flwr.app import Message, UserConfigValue
from flwr.serverapp import Grid

from app.simulation.grid import LocalGrid
from strategies.core.turns import InTurn
from strategies.core.wire import twin
from strategies.server.grids import BaseGrid

T = TypeVar("T")
_Value = TypeVar("_Value")
_LOOK_SECONDS = 5.0
"""After so long without a reply all works go on, to look whether a client's time is up."""


class _Stopped(BaseException):
    """Ends a work, as another one has failed."""


def on_copies(grid: LocalGrid, num_clients: int, works: Sequence[Callable[[Grid], T]]) -> list[T]:
    """Return what works return, each of which is given a grid of a copy of the federation.

    Parameters
    ----------
    grid
        Has `num_clients` nodes for each work: those of the first copy, then those of the second, and so on.
        What clients keep is forgotten first.

    Raises
    ------
    BaseException
        What the first work that fails has raised, after all others have ended where they were.
    """
    grid.restore_client_states({})
    together = _Together(grid, [_Copy(grid, i * num_clients, num_clients, w) for i, w in enumerate(works)])
    with grid.holding():
        try:
            together.run()
        except BaseException:
            together.stop()
            raise
    return [copy.returned[0] for copy in together.copies]


@final
class _Together(Generic[T]):
    """Copies of a federation that go on together.

    Messages are handed on when no work waits for others any more, so that those of a round of all copies are
    grouped together, with any number of workers; without groups, at once.
    """

    def __init__(self, grid: LocalGrid, copies: "Sequence[_Copy[T]]") -> None:
        self._grid = grid
        self.copies = copies

    def run(self) -> None:
        """Have all works come to their ends."""
        going_on = self.copies
        while going_on:
            for copy in going_on:
                copy.go_on()
                if self._grid.grouping.most == 1:
                    self._release()
            going_on = self._next()

    def stop(self) -> None:
        """End all works where they are."""
        for copy in self.copies:
            copy.stop()

    def _next(self) -> "Sequence[_Copy[T]]":
        """Return the works that go on: those with new replies; all, if there was none for long."""
        left = [copy for copy in self.copies if not copy.ended]
        if not any(copy.awaited for copy in left):
            self._release()
        deadline = time.monotonic() + _LOOK_SECONDS
        while (awaited := {i: copy for copy in left for i in copy.awaited}) and time.monotonic() < deadline:
            for message in self._grid.pull_messages(awaited.keys()):
                awaited[message.metadata.reply_to_message_id].deliver(message)
            if found := [copy for copy in left if copy.has_mail]:
                return found
        return left

    def _release(self) -> None:
        self._grid.release()
        for copy in self.copies:
            copy.handed_on()


@final
class _Copy(BaseGrid, Generic[T]):
    """A copy of the federation as its work sees it: with nodes 1 to `size`, of the grid those after `first`.

    Attributes
    ----------
    returned : list
        What the work returned, once it has.
    """

    def __init__(self, grid: LocalGrid, first: int, size: int, work: Callable[[Grid], T]) -> None:
        self._grid, self._first, self._size = grid, first, size
        self.returned: list[T] = []
        self._turn = InTurn(lambda: self.returned.append(work(self)))
        self._stopping = False
        self._wanted: Set[str] = frozenset()
        self._held: set[str] = set()
        self._under_way: set[str] = set()
        self._inbox: dict[str, Message] = {}

    @property
    def ended(self) -> bool:
        """Whether the work has come to its end."""
        return self._turn.ended

    @property
    def awaited(self) -> Set[str]:
        """The messages that workers have and the work waits for."""
        return self._wanted & self._under_way

    @property
    def has_mail(self) -> bool:
        """Whether replies have arrived that the work waits for."""
        return not self._wanted.isdisjoint(self._inbox)

    def go_on(self) -> None:
        """Run until the work waits for replies or ends; raise what it raises."""
        self._turn.go_on()
        if self._turn.error is not None:
            raise self._turn.error

    def stop(self) -> None:
        """End the work where it is."""
        self._stopping = True
        while self._turn.begun and not self._turn.ended:
            self._turn.go_on()
        self.cancel([*self._held, *self._under_way])

    def deliver(self, message: Message) -> None:
        """Take a reply."""
        message_id = message.metadata.reply_to_message_id
        self._under_way.discard(message_id)
        answer = message.error if message.has_error() else message.content
        node_id = message.metadata.src_node_id - self._first
        self._inbox[message_id] = twin(message, answer, src_node_id=node_id)

    def handed_on(self) -> None:
        """Note that the messages that were held back are with the workers."""
        self._under_way |= self._held
        self._held.clear()

    @property
    def started_with(self) -> Mapping[str, UserConfigValue]:
        """The run config that the clients were started with."""
        return self._grid.started_with

    def get_node_ids(self) -> list[int]:
        """Return the ids of the copy's nodes, in the order of the clients."""
        return list(range(1, self._size + 1))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Accept messages; return their ids."""
        sent = list(messages)
        ids = self._grid.push_messages(
            twin(message, message.content, dst_node_id=self._there(message.metadata.dst_node_id))
            for message in sent
        )
        for message, message_id in zip(sent, ids, strict=True):
            message.metadata.__dict__["_message_id"] = message_id
        self._held.update(ids)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return replies that have arrived, each once; let the others go on first if there is none."""
        self._wanted = frozenset(message_ids)
        if not self.has_mail:
            self._turn.pause()
        if self._stopping:
            raise _Stopped
        arrived = sorted(self._wanted & self._inbox.keys(), key=int)
        return [self._inbox.pop(message_id) for message_id in arrived]

    def cancel(self, message_ids: Iterable[str]) -> None:
        """Give up on messages: their replies will never be pulled."""
        gone = set(message_ids)
        self._held -= gone
        self._under_way -= gone
        for message_id in gone & self._inbox.keys():
            del self._inbox[message_id]
        self._grid.cancel(gone)

    def begun(self, message_ids: Iterable[str]) -> dict[str, float]:
        """Return when workers began with the messages they are at, by the clock `time.monotonic`."""
        return self._grid.begun(message_ids)

    def client_states(self) -> dict[int, bytes]:
        """Return the states of the copy's clients that are not empty, by node id."""
        return self._own(self._grid.client_states())

    def state_versions(self) -> dict[int, int]:
        """Return a number for each client of the copy that changes with its state, by node id."""
        return self._own(self._grid.state_versions())

    def restore_client_states(self, states: Mapping[int, bytes]) -> None:
        """Replace the states of the copy's clients."""
        everybody = self._grid.client_states()
        others = {node: state for node, state in everybody.items() if not self._has(node)}
        self._grid.restore_client_states({**others, **{self._there(n): s for n, s in states.items()}})

    def _has(self, there: int) -> bool:
        return self._first < there <= self._first + self._size

    def _there(self, node_id: int) -> int:
        """Return a node's id on the grid; 0, which no node has, for another copy's."""
        return node_id + self._first if 1 <= node_id <= self._size else 0

    def _own(self, values: Mapping[int, _Value]) -> dict[int, _Value]:
        return {node - self._first: value for node, value in values.items() if self._has(node)}

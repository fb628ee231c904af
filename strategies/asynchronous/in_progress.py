"""The clients in progress and the order in which their replies are used; asynchronous training has no rounds.

Places are given to idle clients, chosen as ``selection.method`` says, as soon as they are free. With a
simulated clock, replies count in the order of their simulated arrival, however fast this machine is: each
client takes its seconds per example times its examples from the moment it is asked, and a reply that is here
already waits for its turn. So a run is a function of its seed. Without a clock they count as they come.

Nobody is asked twice for the same version of the model, nor again before the step that holds its last reply
is complete: from the same model and data there is nothing new to be had.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.asynchronous.settings import AsyncSettings, updates_per_step
from strategies.core import wire
from strategies.core.seeds import derive_seed
from strategies.server.clock import Clock
from strategies.server.cohort import Cohort
from strategies.server.grids import CohortGrid, StatefulGrid
from strategies.server.guard import Reference
from strategies.server.members import ClientInfo
from strategies.server.selection import require_enough
from strategies.server.selection_methods import Candidates, LastKnownLoss, choose
from strategies.server.settings import SelectionSettings
from strategies.server.wrapper import StrategyWrapper
from strategies.settings import StrategySettings

_PENDING, _MODEL, _NOW = "flight/", "model/", "now"
_DIGITS = 9  # of simulated seconds: sums of equal times are equal


@dataclass(eq=False)
class Pending:
    """A client that was asked to train and whose reply has not been used.

    Parameters
    ----------
    round
        The step for which it was asked.
    due
        When its reply counts, on the simulated clock; without one, when it was sent, by the machine's.
    arrays
        The model that it trains from.
    state
        What the client kept when it was asked, where the grid knows that.
    message_id
        Of the message; empty where it was not accepted.
    lost
        Whether its time is up.
    """

    client_id: str
    node_id: int
    round: int
    due: float
    arrays: ArrayRecord
    state: bytes = b""
    message_id: str = ""
    reply: Message | None = None
    lost: bool = False


@final
class InProgress(StrategyWrapper):
    """The outermost wrapper of an asynchronous strategy: asks clients, and hands on their replies.

    Parameters
    ----------
    inner
        The strategy in its wrappers.
    settings
        Places, updates of a step, and how late one may be.
    selection
        How idle clients are chosen, and how their speeds are drawn.
    accepted
        Client-ids of the replies that the guard let through in this step; its owner keeps it up to date.

    Attributes
    ----------
    selected : list of str
        Who was asked in this step.
    """

    memory_name = "asynchronous"

    def __init__(
        self,
        inner: Strategy,
        settings: StrategySettings,
        selection: SelectionSettings,
        seed: int,
        cohort: Cohort,
        known_losses: LastKnownLoss,
        accepted: Sequence[str],
    ) -> None:
        super().__init__(inner)
        self._settings = settings.own(AsyncSettings)
        self._per_step = updates_per_step(settings)
        self._selection = selection
        self._seed = seed
        self._cohort = cohort
        self._known_losses = known_losses
        self._accepted = accepted
        self._clock = Clock(selection.speeds, seed) if selection.speeds != "none" else None
        self._in_progress: dict[str, Pending] = {}
        self._sent: dict[int, Reference] = {}
        self._behind: dict[int, int] = {}
        self._asked_or_used: set[str] = set()
        self._now = self._began = 0.0
        self._step = self._times_asked = 0
        self._arrays = ArrayRecord()
        self._recalled: dict[str, Tensor] = {}
        self.selected: list[str] = []

    @property
    def seconds(self) -> float | None:
        """How long the step took on the simulated clock; None where there is none."""
        return None if self._clock is None else round(self._now - self._began, _DIGITS)

    @property
    def pending_states(self) -> dict[int, bytes]:
        """What the clients at work kept when they were asked, by node id; empty without a clock."""
        return {f.node_id: f.state for f in self._in_progress.values()} if self._clock is not None else {}

    def reference_of(self, node_id: int) -> Reference | None:
        """Return the model that a node trained from."""
        return self._sent.get(node_id)

    def staleness_of(self, node_id: int) -> int:
        """Return how many steps the last reply of a node was behind."""
        return self._behind.get(node_id, 0)

    # A step

    def begin(self, server_round: int, arrays: ArrayRecord) -> None:
        """Begin a step with a new model, and fill the free places; LetheError if too few are connected."""
        require_enough(len(self._cohort.clients), self._selection)
        self._step = server_round
        if self._recalled:
            self._take_up(arrays)
        self._arrays, self._began, self._times_asked = arrays, self._now, 0
        self.selected.clear()
        self._asked_or_used.clear()
        self._ask()

    def replies(self) -> Iterator[Message]:
        """Yield replies until the step has enough of them, or no client is in progress."""
        while len(self._accepted) < self._per_step and self._in_progress:
            pending = self._next()
            if (message := self._usable(pending)) is not None:
                yield message
            if len(self._accepted) < self._per_step:
                self._ask()

    def cancel(self) -> None:
        """Stop waiting for all clients."""
        waiting = [f.message_id for f in self._in_progress.values() if f.reply is None]
        self._in_progress.clear()
        self._cohort.cancel(waiting)

    # Asking clients

    def _ask(self) -> None:
        clients = self._cohort.clients
        places = (self._settings.concurrency or len(clients)) - len(self._in_progress)
        idle = [i for i in clients if i not in self._asked_or_used and i not in self._in_progress]
        chosen = self._chosen(idle, clients, places) if places > 0 and idle else []
        if not chosen and self._times_asked:
            return
        self._times_asked += 1
        self._known_losses.asked(chosen)
        self.selected += chosen
        self._asked_or_used.update(chosen)
        states, asked = self._states(), list[Pending]()
        for i in chosen:
            info = clients[i]
            takes = self._clock.seconds(i, info.num_examples) if self._clock else 0.0
            due = round(self._now + takes, _DIGITS)
            state = states.get(info.node_id, b"")
            asked.append(Pending(i, info.node_id, self._step, due, self._arrays, state))
        self._send(self._step, self._arrays, asked)

    def _chosen(self, idle: Sequence[str], clients: Mapping[str, ClientInfo], places: int) -> list[str]:
        """Choose among the idle clients; a step's first draw equals the draw of the round with its number."""
        sizes = {i: clients[i].num_examples for i in idle}
        seconds = {i: self._clock.seconds(i, n) for i, n in sizes.items()} if self._clock else {}
        again = self._times_asked
        seed = derive_seed(self._seed, "asked again", again) if again else self._seed
        candidates = Candidates(sizes, self._known_losses.known, seconds)
        return choose(candidates, min(places, len(idle)), self._selection, seed, self._step)

    def _states(self) -> dict[int, bytes]:
        grid = self._cohort.grid
        return grid.client_states() if isinstance(grid, StatefulGrid) else {}

    def _send(self, server_round: int, arrays: ArrayRecord, asked: Sequence[Pending]) -> None:
        """Configure and push; without clients the wrappers only learn which model is the present one."""
        clients = self._cohort.clients
        by_node = {pending.node_id: pending for pending in asked}
        known = {f.client_id: clients[f.client_id] for f in asked if f.client_id in clients}
        grid = CohortGrid(self._cohort.grid, known)
        config = ConfigRecord(dict(self._cohort.message_config))
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        for message_id, node_id in self._cohort.push(messages, f"round {self._step}").items():
            by_node[node_id].message_id = message_id
        reference = Reference.of(arrays, self._cohort.mask)
        for pending in asked:
            self._in_progress.pop(pending.client_id, None)
            if pending.message_id:
                self._in_progress[pending.client_id] = pending
                self._sent[pending.node_id] = reference
                if self._clock is None:
                    pending.due = time.monotonic()

    # Taking replies

    def _next(self) -> Pending:
        """Return the client whose reply is used next, with the reply, or without one if it is given up."""
        pending = self._arrived() if self._clock is None else self._first_due()
        del self._in_progress[pending.client_id]
        self._asked_or_used.add(pending.client_id)
        return pending

    def _first_due(self) -> Pending:
        first = min(self._in_progress.values(), key=lambda f: (f.due, wire.client_sort_key(f.client_id)))
        waited_since = time.monotonic()
        while first.reply is None and not first.lost:
            if not self._pull():  # On a queue, a client that hangs may keep the worker that `first` needs
                waiting = list(self._in_progress.values()) if self._cohort.has_queue else [first]
                self._lose(waiting, waited_since)
        self._now = first.due
        return first

    def _arrived(self) -> Pending:
        while True:
            here = [f for f in self._in_progress.values() if f.reply is not None]
            if here:
                return here[0]
            if not self._pull():  # Replies that have arrived count even if this machine was busy
                for pending in self._in_progress.values():
                    self._lose([pending], pending.due)
                    if pending.lost:
                        return pending

    def _lose(self, asked: Sequence[Pending], sent: float) -> None:
        """Give up the clients whose time is up."""
        waiting = {f.message_id: f for f in asked if f.reply is None and not f.lost}
        late = self._cohort.overdue(waiting, sent)
        for message_id in late:
            waiting[message_id].lost = True
        self._cohort.cancel(late)

    def _pull(self) -> bool:
        """Take the replies that have arrived; return whether there was one."""
        waiting = {f.message_id: f for f in self._in_progress.values() if f.reply is None and not f.lost}
        arrived = list(self._cohort.grid.pull_messages(list(waiting)))
        for message in arrived:
            if (pending := waiting.get(message.metadata.reply_to_message_id)) is not None:
                pending.reply = message
        if not arrived:
            time.sleep(self._cohort.poll_seconds)
        return bool(arrived)

    def _usable(self, pending: Pending) -> Message | None:
        scope, client_id = f"round {self._step}", pending.client_id
        if pending.reply is None:
            self._cohort.add_fault(client_id, scope, self._cohort.silence)
            return None
        if self._cohort.usable(pending.reply, pending.node_id, scope) is None:
            return None
        staleness = self._step - pending.round
        if staleness > self._settings.max_staleness:
            allowed = self._settings.max_staleness
            reason = f"stale: {staleness} steps behind, strategy.max-staleness is {allowed}"
            self._cohort.add_fault(client_id, scope, reason)
            return None
        self._behind[pending.node_id] = staleness
        return pending.reply

    # Checkpoints

    def memory(self) -> dict[str, Tensor]:
        """Return the state for a checkpoint: with a clock, the clients in progress and their models."""
        if self._clock is None:
            return {}
        tensors = {_NOW: torch.tensor(self._now, dtype=torch.float64)}
        for client_id, pending in self._in_progress.items():
            tensors[_PENDING + client_id] = torch.tensor([pending.round, pending.due], dtype=torch.float64)
            flat = wire.flat_of(pending.arrays, wire.layout_of(pending.arrays))
            tensors[f"{_MODEL}{pending.round}"] = flat
        return tensors

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore `memory`; the clients that were in progress are asked again when the next step begins."""
        self._recalled = dict(tensors)

    def _take_up(self, arrays: ArrayRecord) -> None:
        recalled, self._recalled = self._recalled, {}
        layout, clients, states = wire.layout_of(arrays), self._cohort.clients, self._states()
        self._now = float(recalled[_NOW])
        for name in sorted(name for name in recalled if name.startswith(_PENDING)):
            client_id, (server_round, due) = name.removeprefix(_PENDING), recalled[name].tolist()
            if (info := clients.get(client_id)) is None:
                self._cohort.add_fault(client_id, f"round {self._step}", "not connected any more")
                continue
            model = wire.FlatRecord(recalled[f"{_MODEL}{int(server_round)}"], layout)
            state = states.get(info.node_id, b"")
            pending = Pending(client_id, info.node_id, int(server_round), due, model, state)
            self._send(pending.round, model, [pending])

"""Who trains at the moment, and whose reply counts next: what a round's exchange is to rounds that wait.

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
from strategies.server.grids import CohortGrid
from strategies.server.guard import Reference
from strategies.server.members import ClientInfo
from strategies.server.selection import require_enough
from strategies.server.selection_methods import Candidates, HeardStrategy, choose
from strategies.server.settings import SelectionSettings
from strategies.server.wrapper import StrategyWrapper
from strategies.settings import StrategySettings

_FLIGHT, _MODEL, _NOW = "flight/", "model/", "now"
_DIGITS = 9  # of simulated seconds: sums of equal times are equal


@dataclass(eq=False)
class Flight:
    """A client at work.

    Parameters
    ----------
    client_id, node_id
        Whose.
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
    reply
        Once it is here.
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
class Flights(StrategyWrapper):
    """The outermost wrapper of an asynchronous strategy: asks clients, and hands on their replies.

    Parameters
    ----------
    inner
        The strategy in its wrappers.
    settings
        Places, updates of a step, and how late one may be.
    selection
        How idle clients are chosen, and how their speeds are drawn.
    seed
        The run's.
    cohort
        Connected clients.
    heard
        The wrapper that remembers what clients reported.
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
        heard: HeardStrategy,
        accepted: Sequence[str],
    ) -> None:
        super().__init__(inner)
        self._settings = settings.own(AsyncSettings)
        self._per_step = updates_per_step(settings)
        self._selection = selection
        self._seed = seed
        self._cohort = cohort
        self._heard = heard
        self._accepted = accepted
        self._clock = Clock(selection.speeds, seed) if selection.speeds != "none" else None
        self._flights: dict[str, Flight] = {}
        self._sent: dict[int, Reference] = {}
        self._behind: dict[int, int] = {}
        self._asked_or_heard: set[str] = set()
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
        return {f.node_id: f.state for f in self._flights.values()} if self._clock is not None else {}

    def reference_of(self, node_id: int) -> Reference | None:
        """Return the model that a node trained from."""
        return self._sent.get(node_id)

    def staleness_of(self, node_id: int) -> int:
        """Return how many steps the last reply of a node was behind."""
        return self._behind.get(node_id, 0)

    # A step

    def begin(self, server_round: int, arrays: ArrayRecord) -> None:
        """Begin a step with a new version of the model; ask whom there is a place for.

        Raises
        ------
        LetheError
            If fewer clients are connected than must be.
        """
        require_enough(len(self._cohort.clients), self._selection)
        self._step = server_round
        if self._recalled:
            self._take_up(arrays)
        self._arrays, self._began, self._times_asked = arrays, self._now, 0
        self.selected.clear()
        self._asked_or_heard.clear()
        self._ask()

    def replies(self) -> Iterator[Message]:
        """Yield replies until the step has enough of them, or nobody is left to wait for."""
        while len(self._accepted) < self._per_step and self._flights:
            flight = self._next()
            if (message := self._usable(flight)) is not None:
                yield message
            if len(self._accepted) < self._per_step:
                self._ask()

    def cancel(self) -> None:
        """Wait for nobody any more."""
        waiting = [f.message_id for f in self._flights.values() if f.reply is None]
        self._flights.clear()
        self._cohort.cancel(waiting)

    # Whom to ask

    def _ask(self) -> None:
        clients = self._cohort.clients
        places = (self._settings.concurrency or len(clients)) - len(self._flights)
        idle = [i for i in clients if i not in self._asked_or_heard and i not in self._flights]
        chosen = self._chosen(idle, clients, places) if places > 0 and idle else []
        if not chosen and self._times_asked:
            return
        self._times_asked += 1
        self._heard.asked(chosen)
        self.selected += chosen
        self._asked_or_heard.update(chosen)
        states, flights = self._states(), list[Flight]()
        for i in chosen:
            info = clients[i]
            takes = self._clock.seconds(i, info.num_examples) if self._clock else 0.0
            due = round(self._now + takes, _DIGITS)
            state = states.get(info.node_id, b"")
            flights.append(Flight(i, info.node_id, self._step, due, self._arrays, state))
        self._send(self._step, self._arrays, flights)

    def _chosen(self, idle: Sequence[str], clients: Mapping[str, ClientInfo], places: int) -> list[str]:
        """Choose among the idle; the first draw of a step is that of the round with the same number."""
        sizes = {i: clients[i].num_examples for i in idle}
        seconds = {i: self._clock.seconds(i, n) for i, n in sizes.items()} if self._clock else {}
        again = self._times_asked
        seed = derive_seed(self._seed, "asked again", again) if again else self._seed
        candidates = Candidates(sizes, self._heard.known, seconds)
        return choose(candidates, min(places, len(idle)), self._selection, seed, self._step)

    def _states(self) -> dict[int, bytes]:
        states: dict[int, bytes] = getattr(self._cohort.grid, "client_states", dict)()
        return states

    def _send(self, server_round: int, arrays: ArrayRecord, flights: Sequence[Flight]) -> None:
        """Configure and push; without flights the wrappers only learn which model is the present one."""
        clients = self._cohort.clients
        by_node = {flight.node_id: flight for flight in flights}
        known = {f.client_id: clients[f.client_id] for f in flights if f.client_id in clients}
        grid = CohortGrid(self._cohort.grid, known)
        config = ConfigRecord(dict(self._cohort.message_config))
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        for message_id, node_id in self._cohort.push(messages, f"round {self._step}").items():
            by_node[node_id].message_id = message_id
        reference = Reference.of(arrays, self._cohort.mask)
        for flight in flights:
            self._flights.pop(flight.client_id, None)
            if flight.message_id:
                self._flights[flight.client_id] = flight
                self._sent[flight.node_id] = reference
                if self._clock is None:
                    flight.due = time.monotonic()

    # Whose reply counts next

    def _next(self) -> Flight:
        """Return the flight that ends next, with its reply, or without one if it is given up."""
        flight = self._arrived() if self._clock is None else self._first_due()
        del self._flights[flight.client_id]
        self._asked_or_heard.add(flight.client_id)
        return flight

    def _first_due(self) -> Flight:
        first = min(self._flights.values(), key=lambda f: (f.due, wire.client_sort_key(f.client_id)))
        waited_since = time.monotonic()
        while first.reply is None and not first.lost:
            if not self._pull():  # On a queue, whoever hangs may keep the worker that the first one needs
                self._lose(list(self._flights.values()) if self._cohort.has_queue else [first], waited_since)
        self._now = first.due
        return first

    def _arrived(self) -> Flight:
        while True:
            here = [f for f in self._flights.values() if f.reply is not None]
            if here:
                return here[0]
            if not self._pull():  # What is here counts, however busy this machine was
                for flight in self._flights.values():
                    self._lose([flight], flight.due)
                    if flight.lost:
                        return flight

    def _lose(self, flights: Sequence[Flight], sent: float) -> None:
        """Give up those of the flights whose time is up."""
        waiting = {f.message_id: f for f in flights if f.reply is None and not f.lost}
        late = self._cohort.overdue(waiting, sent)
        for message_id in late:
            waiting[message_id].lost = True
        self._cohort.cancel(late)

    def _pull(self) -> bool:
        """Take in replies that are here; say whether there was one."""
        waiting = {f.message_id: f for f in self._flights.values() if f.reply is None and not f.lost}
        arrived = list(self._cohort.grid.pull_messages(list(waiting)))
        for message in arrived:
            if (flight := waiting.get(message.metadata.reply_to_message_id)) is not None:
                flight.reply = message
        if not arrived:
            time.sleep(self._cohort.poll_seconds)
        return bool(arrived)

    def _usable(self, flight: Flight) -> Message | None:
        scope, client_id = f"round {self._step}", flight.client_id
        if flight.reply is None:
            self._cohort.add_fault(client_id, scope, self._cohort.silence)
            return None
        if self._cohort.usable(flight.reply, flight.node_id, scope) is None:
            return None
        staleness = self._step - flight.round
        if staleness > self._settings.max_staleness:
            allowed = self._settings.max_staleness
            reason = f"stale: {staleness} steps behind, strategy.max-staleness is {allowed}"
            self._cohort.add_fault(client_id, scope, reason)
            return None
        self._behind[flight.node_id] = staleness
        return flight.reply

    # Checkpoints

    def memory(self) -> dict[str, Tensor]:
        """Return what must be in a checkpoint: with a clock, who is at work, on which model, until when."""
        if self._clock is None:
            return {}
        tensors = {_NOW: torch.tensor(self._now, dtype=torch.float64)}
        for client_id, flight in self._flights.items():
            tensors[_FLIGHT + client_id] = torch.tensor([flight.round, flight.due], dtype=torch.float64)
            flat = wire.flat_of(flight.arrays, wire.layout_of(flight.arrays))
            tensors[f"{_MODEL}{flight.round}"] = flat
        return tensors

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `memory` returned; who was at work is asked again when the next step begins."""
        self._recalled = dict(tensors)

    def _take_up(self, arrays: ArrayRecord) -> None:
        recalled, self._recalled = self._recalled, {}
        layout, clients, states = wire.layout_of(arrays), self._cohort.clients, self._states()
        self._now = float(recalled[_NOW])
        for name in sorted(name for name in recalled if name.startswith(_FLIGHT)):
            client_id, (server_round, due) = name.removeprefix(_FLIGHT), recalled[name].tolist()
            if (info := clients.get(client_id)) is None:
                self._cohort.add_fault(client_id, f"round {self._step}", "not connected any more")
                continue
            model = wire.FlatRecord(recalled[f"{_MODEL}{int(server_round)}"], layout)
            state = states.get(info.node_id, b"")
            flight = Flight(client_id, info.node_id, int(server_round), due, model, state)
            self._send(flight.round, model, [flight])

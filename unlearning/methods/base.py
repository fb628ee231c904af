"""What a forgetting method is: its needs, what it serves, its guarantee, and a function that does it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from flwr.app import ArrayRecord
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.examples import Examples
from strategies.core.seeds import torch_generator
from strategies.core.settings import Settings
from strategies.server.cohort import Cohort
from strategies.server.exclusion import Drop
from strategies.settings import StrategySettings
from strategies.task import CLASSIFICATION, Task
from unlearning.holdings import Holdings, absent_clients
from unlearning.request import ForgetRequest, ForgetSpec, Kind, spec_for
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

UNCHANGED = "unchanged"
"""Among the details of a result: 1 where nothing was to be forgotten."""

LogNeed = Literal["none", "norms", "sum", "kept", "full"]


class Progress(Protocol):
    """Told how far a method is."""

    def __call__(self, done: int, total: int, values: Mapping[str, float]) -> None:
        """Take note of `done` of `total` steps."""


@dataclass(frozen=True)
class Needs:
    """What must be there before a method starts.

    Parameters
    ----------
    log
        ``none``; ``norms``: the weight and norm of each update are enough, which every log keeps; ``sum``: so
        is the running Σ weight·update of each client; ``kept``: what clients sent in some rounds, whatever
        the strategy made of it; ``full``: the updates of every round are read.
    public
        Whether the server needs data of its own.
    remaining
        Whether the clients that remain must be online.
    forgotten
        Whether the forgotten client must be online.
    rebuilds
        Whether the model is made anew from the initial one and what was logged, which holds all classes and
        examples: such a method cannot follow a request that named some.
    fresh
        Whether every update of a logged round is taken as made from that round's model; with an asynchronous
        strategy it may be late.
    form
        Which form of the method has these needs, for messages; empty where it has but one.
    models
        Whose models it works on: ``global``, the one that all clients share; ``client``, those that clients
        keep to themselves; or ``any``.
    """

    log: LogNeed = "none"
    public: bool = False
    remaining: bool = False
    forgotten: bool = False
    rebuilds: bool = False
    fresh: bool = False
    form: str = ""
    models: Literal["global", "client", "any"] = "global"


@dataclass(frozen=True)
class ForgetJob:
    """All that a method is given.

    Parameters
    ----------
    run
        The finished run; read only.
    request
        What shall be forgotten.
    settings
        The section ``forget`` of the run config.
    cohort
        Connected clients, or None.
    progress
        Told how far the method is.
    holdings
        What clients said that they hold of the request.
    """

    run: TrainedRun
    request: ForgetRequest
    settings: ForgetSettings
    cohort: Cohort | None
    progress: Progress
    holdings: Holdings = field(default_factory=Holdings)

    def generator(self, *scope: int | str) -> torch.Generator:
        """Return a generator that depends on the run's seed, the request and the scope only."""
        return torch_generator(self.run.seed, "forget", self.request.name, *scope)

    def remaining(self) -> Cohort:
        """Return the connected clients without the forgotten ones.

        Raises
        ------
        BadInput
            If no client is connected.
        """
        return self.connected().without(self.request.clients)

    def connected(self) -> Cohort:
        """Return all connected clients, those of the request included, those forgotten before left out.

        Raises
        ------
        BadInput
            If no client is connected.
        """
        if self.cohort is None:
            raise BadInput("this needs the remaining clients online, but no client is connected")
        earlier = self.run.forgotten_clients
        return self.cohort.without(earlier) if earlier else self.cohort

    @property
    def drop(self) -> Drop:
        """What the clients that remain must leave out of their training, earlier requests included."""
        return Drop.joined(request.drop for request in (self.request, *self.run.forgotten))

    @property
    def forget_drop(self) -> Drop:
        """What the request names, for methods that train on it; less what was forgotten before."""
        earlier = Drop.joined(request.drop for request in self.run.forgotten)
        return replace(self.request.drop, gone=earlier)

    @property
    def excluded_clients(self) -> tuple[str, ...]:
        """Clients that shall have no part in the result: those of the request and those forgotten before."""
        return tuple(sorted({*self.request.clients, *self.run.forgotten_clients}, key=wire.client_sort_key))

    def spec(self, client_id: str) -> ForgetSpec:
        """Return which of a client's examples are to be forgotten, and which were before."""
        return spec_for(self.request, client_id, self.run.forgotten)

    @property
    def absent(self) -> tuple[str, ...]:
        """Clients of the request that never took part in a round, as far as the update log tells."""
        return absent_clients(self.run, self.request.named_clients)


@dataclass(frozen=True)
class ForgetWork:
    """All that the client half of a method is given.

    Parameters
    ----------
    arrays
        The records of arrays of the message, by name; ``arrays`` is the model.
    build_model
        Makes a model of the run's architecture on the device to use, with the weights of a record.
    config
        The record ``config`` of the message.
    retain, forget
        The client's own examples that stay, and those that the request names.
    train
        The section ``train`` of the run config.
    client_id
        The client's stable name.
    generator
        Seeded by run, client and round.
    strategy
        The section ``strategy`` of the run config.
    server_round
        The round of the message; 0 outside of rounds.
    work
        What is learned.
    """

    arrays: Mapping[str, ArrayRecord]
    build_model: Callable[[ArrayRecord], nn.Module]
    config: Mapping[str, Any]
    retain: Examples
    forget: Examples
    train: TrainSettings
    client_id: str
    generator: torch.Generator
    strategy: StrategySettings = field(default_factory=StrategySettings)
    server_round: int = 0
    task: Task = CLASSIFICATION


@dataclass(frozen=True)
class ClientAnswer:
    """What the client half of a method returns: numbers under keys of `strategies.core.wire`, and arrays."""

    metrics: Mapping[str, float | int | list[float] | list[int]]
    arrays: ArrayRecord | None = None


ClientAction = Callable[[ForgetWork], ClientAnswer]


@dataclass(frozen=True)
class Outcome:
    """What a method returns: new flat parameters, remarks for people, and numbers about the work.

    `mask` says which parameters are left where the method chose that anew; None: those of the run.
    """

    flat: Tensor
    notes: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    mask: Tensor | None = None


@dataclass(frozen=True)
class Method:
    """A forgetting method.

    Parameters
    ----------
    name
        As in the run config.
    summary
        One line for people.
    guarantee
        Exact, or approximate and what is not promised.
    source
        The paper it comes from, in a few words.
    cost
        In rounds and client visits.
    serves
        The kinds of request.
    refusal
        Why the other kinds are not served.
    needs
        A function of the section ``forget``.
    run
        Does the work.
    settings
        Its own keys of that section.
    actions
        The client half, by message type, such as ``train.finetune`` or ``query.fisher``.
    prunes_anew
        Whether it chooses the mask of a pruned run anew; the others keep it.
    trains_as_the_run
        Whether its clients do nothing but train by the run's own algorithm, and so with its privacy.
    is_reference
        Whether it is the retraining that the others are compared with.
    flat_keys
        What a key of its own was called when all methods shared one section, where that was something else:
        the former key -> the present one.
    """

    name: str
    summary: str
    guarantee: str
    source: str
    cost: str
    serves: frozenset[Kind]
    refusal: str
    needs: Callable[[ForgetSettings], Needs]
    run: Callable[[ForgetJob], Outcome]
    settings: type[Settings] = Settings
    actions: Mapping[str, ClientAction] = field(default_factory=dict)
    prunes_anew: bool = False
    trains_as_the_run: bool = False
    is_reference: bool = False
    flat_keys: Mapping[str, str] = field(default_factory=dict)

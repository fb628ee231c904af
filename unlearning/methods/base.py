"""A forgetting method: its needs, what it serves, its guarantee, and the function that does the work."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, final

import torch
from flwr.app import ArrayRecord
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.examples import Examples
from strategies.core.seeds import torch_generator
from strategies.log.reading import LogReader
from strategies.server.cohort import Cohort
from strategies.server.exclusion import Drop
from strategies.settings import StrategySettings
from strategies.task import CLASSIFICATION, Task
from unlearning.forget_spec import ForgetSpec, spec_for
from unlearning.holdings import Holdings, absent_clients
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings
from unlearning.traits.base import Traits


class Progress(Protocol):
    """Receives how far a method is."""

    def __call__(self, done: int, total: int, values: Mapping[str, float]) -> None:
        """Report `done` of `total` steps, with figures by name."""


@dataclass(frozen=True)
class ForgetJob:
    """All that a method is given.

    The run is read only. `cohort` holds the connected clients, or None; `holdings` what clients said that
    they hold of the request.
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
        """Return the connected clients without the forgotten ones; BadInput if no client is connected."""
        return self.connected().without(self.request.clients)

    def connected(self) -> Cohort:
        """Return all connected clients but those forgotten earlier; BadInput if no client is connected."""
        if self.cohort is None:
            raise BadInput("this needs the remaining clients online, but no client is connected")
        earlier = self.run.forgotten_clients
        return self.cohort.without(earlier) if earlier else self.cohort

    @property
    def drop(self) -> Drop:
        """What the remaining clients leave out of their training, earlier requests included."""
        return Drop.joined(request.drop for request in (self.request, *self.run.forgotten))

    @property
    def forget_drop(self) -> Drop:
        """What the request names, for methods that train on it, without what was forgotten earlier."""
        earlier = Drop.joined(request.drop for request in self.run.forgotten)
        return replace(self.request.drop, gone=earlier)

    @property
    def excluded_clients(self) -> tuple[str, ...]:
        """Clients without a part in the result: those of the request and those forgotten earlier."""
        return tuple(sorted({*self.request.clients, *self.run.forgotten_clients}, key=wire.client_sort_key))

    def spec(self, client_id: str) -> ForgetSpec:
        """Return which of a client's examples are to be forgotten, and which were forgotten earlier."""
        return spec_for(self.request, client_id, self.run.forgotten)

    @property
    def participants(self) -> tuple[str, ...]:
        """Clients of the request that took part in a round, as far as the update log tells."""
        absent = absent_clients(self.run, self.request.named_clients)
        return tuple(i for i in self.request.named_clients if i not in absent)

    @property
    def absence_notes(self) -> list[str]:
        """A note for each client of the request that never took part."""
        absent = absent_clients(self.run, self.request.named_clients)
        return [f"client {i} never took part in a round: nothing to forget" for i in absent]

    @property
    def log(self) -> LogReader:
        """The run's update log, for methods whose needs ask for it."""
        if self.run.log is None:
            raise RuntimeError("needs were not checked")
        return self.run.log

    @property
    def public(self) -> Examples:
        """The server's public data, for methods whose needs ask for them."""
        if self.run.public is None:
            raise RuntimeError("needs were not checked")
        return self.run.public


@dataclass(frozen=True)
class ForgetWork:
    """All that the client half of a method is given.

    `arrays` and `config` are the message's records, of which ``arrays["arrays"]`` is the model; `build_model`
    gives a model a record's weights, on the device to use; it may be one and the same model each time.
    `retain` and `forget` are the client's own examples that stay and that the request names, `train` and
    `strategy` sections of the run config. `generator` is seeded by run, client and round; `server_round` is 0
    outside of rounds.
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
    """A method's result: new flat parameters, remarks for people, and numbers about the work.

    `mask` says which parameters are left if the method chose that anew; None: those of the run.
    """

    flat: Tensor
    notes: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    mask: Tensor | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Method(Traits):
    """A forgetting method: its traits, and what does the work.

    Parameters
    ----------
    run
        The server half.
    actions
        The client half, by message type, such as ``train.finetune`` or ``query.fisher``.
    """

    run: Callable[[ForgetJob], Outcome]
    actions: Mapping[str, ClientAction] = field(default_factory=dict)

    @staticmethod
    def of(
        traits: Traits,
        run: Callable[[ForgetJob], Outcome],
        actions: Mapping[str, ClientAction] | None = None,
    ) -> "Method":
        """Return the method that has these traits and works so."""
        return Method(**vars(traits), run=run, actions=actions or {})

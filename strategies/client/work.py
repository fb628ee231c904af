"""The arguments and the answer of a client's handler for an algorithm's own message type."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from flwr.app import ArrayRecord, RecordDict
from torch import Tensor, nn

from strategies.core import wire
from strategies.core.examples import Examples
from strategies.core.secret_random import Randomness
from strategies.settings import StrategySettings
from strategies.task import CLASSIFICATION, Task


class Public(Protocol):
    """The public data, which every side holds."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def take(self, indices: Tensor) -> Examples:
        """Return the examples at the given positions."""


@dataclass(frozen=True, eq=False)
class ClientWork:
    """All that a client half is given.

    Parameters
    ----------
    build_model
        Makes the client's model with its initial weights, on the device to use.
    examples
        The client's own data, without what it was told to leave out.
    test
        Returns the test data, or None where the client has none; only ever measured on.
    pooled
        Returns all clients' data, for upper bounds.
    seed
        The run's seed, or another one for a repetition.
    state
        The client's own records, changed in place.
    """

    build_model: Callable[[], nn.Module]
    examples: Examples
    public: Public
    test: Callable[[], Examples | None]
    pooled: Callable[[], Examples]
    settings: StrategySettings
    seed: int
    client_id: str
    state: RecordDict
    config: Mapping[str, Any]
    arrays: Mapping[str, ArrayRecord]
    randomness: Randomness = field(default_factory=Randomness)
    task: Task = CLASSIFICATION

    @property
    def server_round(self) -> int:
        """The message's round; 0 outside of rounds."""
        return int(self.config.get(wire.SERVER_ROUND, 0))


@dataclass(frozen=True)
class ClientReply:
    """A client's answer: numbers under the keys of `strategies.core.wire`, and arrays."""

    metrics: Mapping[str, float | int]
    arrays: ArrayRecord | None = None

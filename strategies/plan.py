"""The plan of a training, its start, and the result of each round."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.algorithm import Holdings, ServerSide
from strategies.core import wire
from strategies.layers.compression.settings import CompressionSettings
from strategies.layers.isolation.server import IsolatedGroups
from strategies.layers.privacy.settings import PrivacySettings
from strategies.registry import PLAIN, lookup
from strategies.server.cohort import Fault, Traffic
from strategies.server.exclusion import Drop
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings


@dataclass(frozen=True)
class TrainingPlan:
    """The settings of a training apart from the data; enough to repeat it.

    Parameters
    ----------
    strategy, selection
        Sections of the run config; clients read the rest from their own copy of it.
    evaluate_every
        Rounds between two evaluations; the last round is always evaluated.
    federated_evaluation
        Whether clients evaluate, too, on what they hold out.
    build
        Makes the server half from the plan in place of the algorithm's own; None: that does.
    privacy
        What is protected; clients read it from their own copy of the run config, too.
    holdings
        What the server holds; None where the algorithm needs nothing of it.
    compression
        What travels instead of whole models; clients read it from their own copy of the run config, too.
    local_test_share
        Share of its own examples that a client holds out, which federated evaluation measures on.
    schedule_rounds
        How many rounds the schedule of the learning rate lasts, those after them being like the last; None:
        as many as the training was planned for.
    settle
        Sets what nobody trains in a model, shape [P], such as statistics on the server's own data; None:
        there is nothing.
    horizon
        Rounds that the training was planned for, by which noise is solved and what follows the whole training
        is timed, if it ends after fewer; 0: `rounds`.
    isolation
        Groups of clients that are trained apart, each with a model of its own, at least 1; neutral 1. The
        model of the training is their ensemble then (see `strategies.layers.isolation`).
    """

    strategy: StrategySettings
    selection: SelectionSettings
    rounds: int
    seed: int
    evaluate_every: int = 1
    federated_evaluation: bool = False
    drop: Drop = Drop()
    build: "Callable[[TrainingPlan], Strategy] | None" = None
    privacy: PrivacySettings = PrivacySettings()
    holdings: Holdings | None = None
    compression: CompressionSettings = CompressionSettings()
    local_test_share: float = 0.0
    settle: Callable[[Tensor], Tensor] | None = None
    horizon: int = 0
    schedule_rounds: int | None = None
    isolation: int = 1

    @property
    def schedule_length(self) -> int:
        """How many rounds the schedule of the learning rate lasts."""
        return self.planned_rounds if self.schedule_rounds is None else self.schedule_rounds

    def going_on(self, rounds: int) -> "TrainingPlan":
        """Return the plan of more rounds after the last.

        They are numbered on, so that clients draw fresh batches; a schedule that has ended stays at its end.
        """
        total = self.rounds + rounds
        return replace(self.in_rounds, rounds=total, schedule_rounds=self.schedule_length)

    @property
    def in_rounds(self) -> "TrainingPlan":
        """The plan, with rounds of plain averaging in place of asynchronous steps, or of a single round."""
        traits = self.strategy.traits
        if not traits.asynchronous and not traits.single_round:
            return self
        return replace(self, strategy=self.strategy.model_copy(update={"name": PLAIN}), build=None)

    @property
    def planned_rounds(self) -> int:
        """Rounds that the training was planned for, at least `rounds`."""
        return max(self.horizon, self.rounds)

    @property
    def server_side(self) -> ServerSide:
        """What the algorithm's server half is made of."""
        return ServerSide(self.strategy, self.seed, self.planned_rounds, self.evaluate_every, self.holdings)

    def server_half(self) -> Strategy:
        """Make the server half that the plan asks for; of groups that are trained apart, one for each."""
        if self.isolation > 1:
            return IsolatedGroups([self._half() for _ in range(self.isolation)])
        return self._half()

    def _half(self) -> Strategy:
        if self.build is not None:
            return self.build(self)
        return lookup(self.strategy.name).build(self.server_side)


@dataclass(frozen=True)
class RoundResult:
    """The result of one round, or of one server step of an asynchronous strategy.

    Parameters
    ----------
    round
        From 1.
    metrics
        Means over the clients' replies and the results of evaluation, by name.
    selected, accepted
        Client-ids that were asked, and whose updates were aggregated, in their order of arrival.
    seconds
        Wall-clock time of the round with its evaluation.
    clients
        What each client reported after the round, by client-id; empty for strategies with a global model.
    privacy
        What every client has spent after the round (see `ServerPrivacy.to_json`); None where nothing is
        private.
    neurons
        Client-id -> which neurons it trains, as hexadecimal text; empty where all train the whole model.
    pending_states
        What clients that are still at work kept when they were asked, by node id: a checkpoint holds that, as
        a resumed run asks them again.
    evaluation
        The model's figures over what the clients hold out, with tables by client and by group, as plain data;
        those of the last round that was evaluated so. None: the clients evaluate nothing.
    """

    round: int
    arrays: ArrayRecord
    metrics: Mapping[str, float]
    selected: tuple[str, ...]
    accepted: tuple[str, ...]
    faults: tuple[Fault, ...]
    traffic: Traffic
    seconds: float
    clients: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    privacy: Mapping[str, Any] | None = None
    neurons: Mapping[str, str] = field(default_factory=dict)
    pending_states: Mapping[int, bytes] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None

    @property
    def used_an_answer(self) -> bool:
        """Whether any client's answer was used; an answer that withholds its update counts."""
        return bool(self.accepted) or wire.WITHHELD in self.metrics


@dataclass(frozen=True)
class Start:
    """Where a training run begins.

    Parameters
    ----------
    arrays
        The model, or what reads it: then nobody holds it longer than it is needed.
    completed_rounds
        0 for a fresh run.
    strategy_tensors
        The strategy's own memory after those rounds (see `strategies.server.memory`).
    privacy
        What every client had spent after them, as in `RoundResult`.
    neurons
        Which neurons each client trained last, as in `RoundResult`.
    attempts
        Client-id -> rounds in which it was asked, those that an interruption undid included.
    """

    arrays: ArrayRecord | Callable[[], ArrayRecord]
    completed_rounds: int = 0
    strategy_tensors: Mapping[str, Tensor] = field(default_factory=dict)
    privacy: Mapping[str, Any] | None = None
    neurons: Mapping[str, str] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)

    def model(self) -> ArrayRecord:
        """Return the model that training begins with."""
        return self.arrays if isinstance(self.arrays, ArrayRecord) else self.arrays()

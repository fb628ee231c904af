"""The one training loop: select, send, check, aggregate while replies arrive, log, evaluate, report.

Training and retraining without someone's data are the same function with another plan. All randomness derives
from the plan's seed, the round and the client-id, so a loop that starts after round t from the state it had
then goes on exactly as the loop that was never interrupted.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.asynchronous.in_progress import Flights
from strategies.client.holdout import most_held_out
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.flower import flower as builtin
from strategies.layers.compression.server import CompressedStrategy, Copies
from strategies.layers.compression.settings import CompressionSettings
from strategies.layers.privacy.server import ServerPrivacy
from strategies.layers.privacy.settings import PrivacySettings
from strategies.layers.secagg.training import Federation, SecureSettings, SecureStrategy
from strategies.one_shot import one_shot
from strategies.pruned_dp.pruned_dp import PrunedStrategy, Pruning, restored
from strategies.registry import lookup
from strategies.server import memory as strategy_state, reports
from strategies.server.cohort import Cohort, Fault, Reply, Traffic
from strategies.server.exclusion import Drop, DroppingStrategy
from strategies.server.grids import CohortGrid
from strategies.server.guard import GuardedStrategy, Reference, Rejected, check_answered, example_count
from strategies.server.members import ClientInfo
from strategies.server.selection import Asked, ask_clients
from strategies.server.selection_methods import HeardStrategy
from strategies.server.wrapper import ReturnResult, StrategyWrapper
from strategies.settings import SelectionSettings, StrategySettings


@dataclass(frozen=True)
class TrainingPlan:
    """What to train with, apart from the data: all that a repetition needs.

    Parameters
    ----------
    strategy, selection
        Sections of the run config; clients read the rest from their own copy of it.
    rounds
        Number of rounds.
    seed
        The run's seed.
    evaluate_every
        Rounds between two evaluations; the last round is always evaluated.
    federated_evaluation
        Whether clients evaluate, too, on what they hold out.
    drop
        Examples that are left out.
    build
        Makes the strategy from the plan, where it needs what only the server holds; None: as the registry
        does.
    privacy
        What is protected; clients read it from their own copy of the run config, too.
    pruning
        How the neurons are selected that each client trains; None: every client trains the whole model.
    compression
        What travels instead of whole models; clients read it from their own copy of the run config, too.
    local_test_share
        Share of its own examples that a client holds out, which federated evaluation measures on.
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
    pruning: Pruning | None = None
    compression: CompressionSettings = CompressionSettings()
    local_test_share: float = 0.0

    @property
    def in_rounds(self) -> "TrainingPlan":
        """The plan, with rounds of FedAvg in place of asynchronous steps, and of one-shot's only one."""
        if not self.strategy.is_asynchronous and self.strategy.name != one_shot.NAME:
            return self
        return replace(self, strategy=self.strategy.model_copy(update={"name": "fedavg"}), build=None)


@dataclass(frozen=True)
class RoundResult:
    """One round as it went; of an asynchronous strategy, one step of the server.

    Parameters
    ----------
    round
        From 1.
    arrays
        The model after the round.
    metrics
        Means over the clients' replies and the results of evaluation, by name.
    selected, accepted
        Client-ids that were asked, and whose updates were aggregated, in their order of arrival.
    faults
        What went wrong with the others.
    traffic
        Bytes and visits of this round.
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


@dataclass(frozen=True)
class Start:
    """Where a training run begins.

    Parameters
    ----------
    arrays
        The model.
    completed_rounds
        0 for a fresh run.
    strategy_tensors
        The strategy's own memory after those rounds (see `strategy_state`).
    privacy
        What every client had spent after them, as in `RoundResult`.
    neurons
        Which neurons each client trained last, as in `RoundResult`.
    attempts
        Client-id -> rounds in which it was asked, those that an interruption undid included.
    """

    arrays: ArrayRecord
    completed_rounds: int = 0
    strategy_tensors: Mapping[str, Tensor] = field(default_factory=dict)
    privacy: Mapping[str, Any] | None = None
    neurons: Mapping[str, str] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)


Evaluate = Callable[[ArrayRecord], Mapping[str, float]]
"""The server's own evaluation of a model."""
OnRound = Callable[[RoundResult, Strategy], None]
"""Told of each round when it is complete, with the strategy, whose memory a checkpoint holds."""
Layer = Callable[[Strategy], Strategy]
"""Wraps the strategy in what must see each accepted update, for example the update log."""


Build = Callable[[], Strategy]
"""Makes a strategy."""


def train(
    plan: TrainingPlan,
    cohort: Cohort,
    start: Start,
    *,
    build: Build | None = None,
    layer: Layer | None = None,
    evaluate: Evaluate | None = None,
    on_round: OnRound | None = None,
) -> ArrayRecord:
    """Train to the plan's last round and return the model.

    Parameters
    ----------
    plan
        What to do.
    cohort
        Connected clients; whoever is not in this view takes no part.
    start
        A fresh model, or the state that an interrupted run left.
    build
        Makes the strategy; None: the plan's.
    layer
        Wraps the strategy inside the guard.
    evaluate
        The server's evaluation, every `plan.evaluate_every` rounds and after the last.
    on_round
        Called after each complete round; what it raises ends the run.

    Raises
    ------
    LetheError
        If fewer clients are connected than must take part.
    """
    loop = _Loop(plan, cohort, build, layer)
    strategy_state.restore(loop.strategy, dict(start.strategy_tensors))
    if loop.pruned is not None:
        loop.pruned.selected.update(restored(start.neurons))
    if loop.privacy is not None and start.privacy is not None:
        loop.privacy.restore(start.privacy)
    if loop.privacy is not None:
        loop.privacy.accounts.attempts.update(start.attempts)
    arrays = start.arrays
    with loop:
        for server_round in range(start.completed_rounds + 1, plan.rounds + 1):
            result = loop.run_round(server_round, arrays, evaluate)
            arrays = result.arrays
            if on_round is not None:
                on_round(result, loop.strategy)
    return arrays


def _planned(plan: TrainingPlan) -> Build:
    if (build := plan.build) is not None:
        return lambda: build(plan)
    return lambda: lookup(plan.strategy.name).build(plan.strategy, plan.seed)


class _Loop:
    """The strategy in its wrappers, and the rounds it runs."""

    def __init__(self, plan: TrainingPlan, cohort: Cohort, build: Build | None, layer: Layer | None) -> None:
        self._known = _known(plan, of_a_method=build is not None)
        self._required = _required(plan)
        asynchronous = build is None and plan.strategy.is_asynchronous
        build = build or _planned(plan)
        self._plan = plan
        self._cohort = cohort
        self._scope = ""
        self._accepted: list[str] = []
        self._max_examples: dict[int, int] = {}
        self._names: dict[int, str] = {}
        self._keeps: dict[str, float] = {}
        self._flights: Flights | None = None
        self._is_asynchronous = asynchronous
        self._update_clients()
        inner = build()
        inner = inner if layer is None else layer(inner)
        self.pruned = self._pruned(inner)
        inner = self.pruned or inner
        self.privacy = ServerPrivacy.of(plan.privacy, plan.selection, plan.rounds, plan.seed)
        inner = inner if self.privacy is None else self.privacy.around(inner, self._names)
        self._heard = HeardStrategy(inner)
        self.strategy = self._compressed(DroppingStrategy(self._guarding(), plan.drop, self._names))
        self._flights = self._asynchronous(self.strategy) if asynchronous else None
        self.strategy = self._flights or self.strategy

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, *_: object) -> None:
        """Wait for no client any more."""
        if self._flights is not None:
            self._flights.cancel()

    def _guarding(self) -> StrategyWrapper:
        """Return the strategy with what checks, decrypts or unmasks what clients send."""
        if self._plan.privacy.secure_aggregation:
            return self._secured()
        return self._encrypted() if self._plan.privacy.encryption != "none" else self._guarded()

    def _secured(self) -> StrategyWrapper:
        privacy = self._plan.privacy
        settings = SecureSettings(privacy.threshold, privacy.max_weight)
        federation = Federation(self._cohort, self._names, lambda: self._scope, self._accepted.append)
        return SecureStrategy(self._heard, settings, federation)

    def _guarded(self) -> StrategyWrapper:
        accept, parts = self._accepted.append, None if self.pruned is None else self.pruned.reference_of
        return GuardedStrategy(
            self._heard,
            self._reject,
            self._max_examples,
            accept,
            self._cohort.mask,
            parts or self._reference_of,
            self._staleness_of,
        )

    def _encrypted(self) -> StrategyWrapper:
        from strategies.layers.encryption.server import EncryptedStrategy

        return EncryptedStrategy(
            self._heard, self._cohort, self._names, self._max_examples, self._reject, self._accepted.append
        )

    def _asynchronous(self, inner: StrategyWrapper) -> Flights:
        plan = self._plan
        return Flights(
            inner, plan.strategy, plan.selection, plan.seed, self._cohort, self._heard, self._accepted
        )

    def _reference_of(self, message: Message) -> Reference | None:
        """Return the model that a node's update is told from; None: the present one."""
        if self._flights is None or not self._plan.strategy.updates_from_sent:
            return None
        return self._flights.reference_of(message.metadata.src_node_id)

    def _staleness_of(self, node_id: int) -> int:
        return 0 if self._flights is None else self._flights.staleness_of(node_id)

    def _compressed(self, inner: StrategyWrapper) -> StrategyWrapper:
        if not self._plan.compression.on:
            return inner
        copies = Copies(self._plan.compression, self._plan.seed, secrets.token_hex(8))
        mask, late = self._cohort.mask, self._is_asynchronous
        return CompressedStrategy(
            inner, copies, self._names, self._reject, self._accepted, mask=mask, asynchronous=late
        )

    def _pruned(self, inner: Strategy) -> PrunedStrategy | None:
        if self._plan.pruning is None:
            return None
        if self._cohort.mask is not None:
            raise LetheError("pruned-dp: clients cannot train parts of a model that is pruned itself")
        central = self._plan.privacy.unit == "client-central"
        return PrunedStrategy(inner, self._plan.pruning, self._names, self._keeps, by_asked=central)

    def run_round(self, server_round: int, arrays: ArrayRecord, evaluate: Evaluate | None) -> RoundResult:
        """Train one round, and evaluate where the plan says so."""
        began, traffic, num_faults = time.monotonic(), self._cohort.traffic.copy(), len(self._cohort.faults)
        arrays, metrics, selected = self._train_round(server_round, arrays)
        returned = self._return_round(server_round, arrays, selected)
        metrics |= returned.metrics
        if self._evaluates(server_round):
            idle = selected if self._flights is None else self._accepted
            metrics |= self._evaluate(server_round, arrays, idle, evaluate)
        faults = tuple(self._cohort.faults[num_faults:])
        return RoundResult(
            server_round,
            arrays,
            metrics,
            tuple(selected),
            tuple(self._accepted),
            faults,
            self._cohort.traffic.since(traffic),
            time.monotonic() - began,
            returned.clients,
            None if self.privacy is None else self.privacy.after_round(faults),
            {} if self.pruned is None else {i: p.hex() for i, p in self.pruned.selected.items()},
            {} if self._flights is None else self._flights.pending_states,
        )

    def _evaluates(self, server_round: int) -> bool:
        return server_round % self._plan.evaluate_every == 0 or server_round == self._plan.rounds

    def _train_round(
        self, server_round: int, arrays: ArrayRecord
    ) -> tuple[ArrayRecord, dict[str, float], Sequence[str]]:
        self._scope = f"round {server_round}"
        self._accepted.clear()
        self._cohort.refresh(self._scope)
        self._update_clients()
        if self._flights is None:
            asked = self._select(self._cohort.clients, server_round)
            selected, replies = asked.clients, self._exchanged(server_round, arrays, asked)
        else:
            self._flights.begin(server_round, arrays)
            selected, replies = self._flights.selected, self._flights.replies()
        clean = reports.cleaned(replies, self._known, self._reject, required=self._required)
        new_arrays, means = self.strategy.aggregate_train(server_round, clean)
        metrics = dict(wire.iter_numbers(means or {}))
        if new_arrays is None and wire.WITHHELD not in metrics:
            self._cohort.add_fault(
                wire.EVERYBODY, self._scope, "no usable reply: the model is kept as it was"
            )
        seconds = asked.seconds if self._flights is None else self._flights.seconds
        if seconds is not None:
            metrics["simulated-seconds"] = seconds
        return arrays if new_arrays is None else new_arrays, metrics, selected

    def _exchanged(self, server_round: int, arrays: ArrayRecord, asked: Asked) -> Iterator[Message]:
        """Send the model to those who are asked; return their replies as they come."""
        clients = self._cohort.clients
        self._heard.asked(asked.clients)
        grid = CohortGrid(self._cohort.grid, {i: clients[i] for i in asked.clients})
        messages = list(self.strategy.configure_train(server_round, arrays, self._message_config(), grid))
        return (reply.message for reply in self._in_time(messages, asked))

    def _in_time(self, messages: Sequence[Message], asked: Asked) -> Iterator[Reply]:
        """Yield the replies that count; the others are counted as faults."""
        missing, count = set(asked.clients), 0
        for reply in self._cohort.exchange(messages, self._scope):
            missing.discard(reply.client_id)
            if reply.client_id in asked.late:
                seconds = asked.late[reply.client_id]
                self._cohort.add_fault(reply.client_id, self._scope, f"late: {seconds:.3g} simulated seconds")
                continue
            count += 1
            yield reply
            if not asked.late and count == asked.awaited < len(asked.clients):
                break
        if not asked.late and count == asked.awaited:
            for client_id in sorted(missing, key=wire.client_sort_key):
                self._cohort.add_fault(client_id, self._scope, "late: enough others had answered")

    def _return_round(self, server_round: int, arrays: ArrayRecord, selected: Sequence[str]) -> ReturnResult:
        """Run the second exchange of strategies that have one, if the first gave something to send back."""
        if not self._accepted:
            return ReturnResult()
        clients = self._cohort.clients
        grid = CohortGrid(self._cohort.grid, {i: clients[i] for i in selected})
        config = ConfigRecord({**self._message_config(), wire.MEASURE: self._evaluates(server_round)})
        messages = list(self.strategy.configure_return(server_round, arrays, config, grid))
        scope = f"{self._scope}, return"
        known = lookup(self._plan.strategy.name).returns
        replies = self._reported(messages, scope, known, self._trained_on)
        result = self.strategy.aggregate_return(server_round, replies)
        for client_id, reason in result.rejected.items():
            self._cohort.add_fault(client_id, scope, reason)
        return result

    def _reported(
        self,
        messages: Sequence[Message],
        scope: str,
        known: reports.Known,
        most: Callable[[str], int | None],
    ) -> Iterator[Message]:
        """Send messages to which the answers are numbers; yield those that can be, with known names only.

        `most` says of how many examples a client can speak; None: that is not known.
        """
        replies = (reply.message for reply in self._cohort.exchange(messages, scope))

        def complain(message: Message, reason: str) -> None:
            self._cohort.add_fault(self._name(message), scope, reason)

        for reply in reports.cleaned(replies, known, complain, strict=True):
            try:
                check_answered(reply)
                example_count(reply.content.metric_records, most(self._name(reply)))
            except Rejected as reason:
                complain(reply, str(reason))
                continue
            yield reply

    def _evaluate(
        self, server_round: int, arrays: ArrayRecord, selected: Sequence[str], evaluate: Evaluate | None
    ) -> dict[str, float]:
        metrics = dict(evaluate(arrays)) if evaluate is not None else {}
        if self._plan.federated_evaluation:
            clients = self._cohort.clients
            grid = CohortGrid(self._cohort.grid, {i: clients[i] for i in selected if i in clients})
            messages = list(
                self.strategy.configure_evaluate(server_round, arrays, self._message_config(), grid)
            )
            scope = f"evaluation after round {server_round}"
            replies = self._reported(messages, scope, reports.EVALUATION, self._held_out)
            means = self.strategy.aggregate_evaluate(server_round, replies)
            metrics |= {f"client-{name}": value for name, value in wire.iter_numbers(means or {})}
        return metrics

    def _trained_on(self, client_id: str) -> int | None:
        info = self._cohort.clients.get(client_id)
        return None if info is None else info.known_examples

    def _held_out(self, client_id: str) -> int | None:
        trained = self._trained_on(client_id)
        return None if trained is None else most_held_out(self._plan.local_test_share, trained)

    def _select(self, clients: Mapping[str, ClientInfo], server_round: int) -> Asked:
        if self.privacy is None or self.privacy.central is None:
            sizes = {i: info.num_examples for i, info in clients.items()}
            plan = self._plan
            return ask_clients(sizes, self._heard.known, plan.selection, plan.seed, server_round)
        selected, refused = self.privacy.central.select(clients, server_round)
        for client_id, reason in refused.items():
            self._cohort.add_fault(client_id, self._scope, f"refused: {reason}")
            self._cohort.turns[client_id] += 1
        return Asked(selected, len(selected))

    def _message_config(self) -> ConfigRecord:
        return ConfigRecord(dict(self._cohort.message_config))

    def _update_clients(self) -> None:
        clients = self._cohort.clients.values()
        self._max_examples.update({info.node_id: info.num_examples for info in clients})
        self._names.update({info.node_id: info.client_id for info in clients})
        self._keeps.update({info.client_id: info.keep for info in clients if info.keep is not None})

    def _reject(self, message: Message, reason: str) -> None:
        self._cohort.add_fault(self._name(message), self._scope, reason)

    def _name(self, message: Message) -> str:
        node_id = message.metadata.src_node_id
        return self._names.get(node_id, f"node {node_id}")


def _known(plan: TrainingPlan, *, of_a_method: bool) -> reports.Known:
    """Return what clients may report with their updates: of a forgetting method what they measured, too."""
    own = reports.EVALUATION if of_a_method else lookup(plan.strategy.name).reports
    return {**reports.TRAINING, **own, **(reports.PRIVATE if plan.privacy.clients_add_noise else {})}


def _required(plan: TrainingPlan) -> list[str]:
    """Return what must be in every reply: what a client has spent, where it says so in the clear."""
    told = plan.privacy.clients_add_noise and plan.privacy.encryption == "none"
    return ([wire.EPSILON] if told else []) + builtin.required_metrics(plan.strategy)

"""The one training loop: select, send, check, aggregate while replies arrive, log, evaluate, report.

Training and retraining without someone's data are the same function with another plan. All randomness derives
from the plan's seed, the round and the client-id, so a loop that starts after round t from the state it had
then goes on exactly as the loop that was never interrupted.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp.strategy import Strategy

from strategies.client.holdout import most_held_out
from strategies.core import wire
from strategies.core.isolation import empty_groups, group_of
from strategies.layers.stack import Build, Layer, Stack, Surroundings
from strategies.models.ensemble import absent_in, emptied
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.registry import lookup
from strategies.server import memory, reports
from strategies.server.cohort import Cohort, Reply
from strategies.server.evaluations import Evaluations
from strategies.server.grids import CohortGrid
from strategies.server.guard import Rejected, check_answered, example_count
from strategies.server.members import ClientInfo
from strategies.server.selection import Asked, ask_groups
from strategies.server.wrapper import ReturnResult

__all__ = ["Build", "Evaluate", "Layer", "OnRound", "train"]

Evaluate = Callable[[ArrayRecord], Mapping[str, float]]
"""The server's own evaluation of a model."""
OnRound = Callable[[RoundResult, Strategy], bool | None]
"""Told of each round when it is complete, with the strategy, whose memory a checkpoint holds; returns True if
the training ends with that round."""

_TRAINED, _MEASURED = "trains on", "is measured on"
"""What a client says a number of examples of."""


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
    """Train to the plan's last round, or to one that `on_round` ends it with, and return the model.

    Parameters
    ----------
    cohort
        Connected clients; those outside of this view take no part.
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
    memory.restore(loop.strategy, dict(start.strategy_tensors))
    if loop.parts is not None:
        loop.parts.selected.update({i: bytes.fromhex(text) for i, text in start.neurons.items()})
    if loop.privacy is not None and start.privacy is not None:
        loop.privacy.restore(start.privacy)
    if loop.privacy is not None:
        loop.privacy.accounts.attempts.update(start.attempts)
    arrays = loop.first_model(start)
    with loop:
        for server_round in range(start.completed_rounds + 1, plan.rounds + 1):
            result = loop.run_round(server_round, arrays, evaluate)
            arrays = result.arrays
            if on_round is not None and on_round(result, loop.strategy):
                break
    return arrays


class _Loop:
    """The strategy in its wrappers, and the rounds it runs."""

    def __init__(self, plan: TrainingPlan, cohort: Cohort, build: Build | None, layer: Layer | None) -> None:
        self._known = _known(plan, of_a_method=build is not None)
        self._claims = reports.Claims()
        self._required = _required(plan)
        self._plan = plan
        self._cohort = cohort
        self._scope = ""
        self._evaluation: Mapping[str, Any] | None = None
        self._around = Surroundings(plan, cohort, build, layer, lambda: self._scope, self._reject)
        self._accepted, self._names = self._around.accepted, self._around.names
        self._update_clients()
        stack = Stack(self._around)
        self.strategy, self.privacy, self.parts = stack.strategy, stack.privacy, stack.parts
        self._known_losses, self._in_progress = stack.known_losses, stack.in_progress

    def first_model(self, start: Start) -> ArrayRecord:
        """Return the model to begin with; groups without a client have none in a training from the start."""
        groups = self._plan.isolation
        empty = empty_groups(self._cohort.clients, groups) if not start.completed_rounds else []
        arrays = start.model()
        if not empty:
            return arrays
        layout = wire.layout_of(arrays)
        return wire.FlatRecord(emptied(wire.flat_of(arrays, layout), groups, empty), layout)

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, *_: object) -> None:
        """Stop waiting for clients."""
        if self._in_progress is not None:
            self._in_progress.cancel()

    def run_round(self, server_round: int, arrays: ArrayRecord, evaluate: Evaluate | None) -> RoundResult:
        """Train one round, and evaluate where the plan says so."""
        began, traffic, num_faults = time.monotonic(), self._cohort.traffic.copy(), len(self._cohort.faults)
        arrays, metrics, selected = self._train_round(server_round, arrays)
        arrays = self._settled(arrays)
        returned = self._return_round(server_round, arrays, selected)
        metrics |= returned.metrics
        if self._evaluates(server_round):
            idle = selected if self._in_progress is None else self._accepted
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
            {} if self.parts is None else {i: p.hex() for i, p in self.parts.selected.items()},
            {} if self._in_progress is None else self._in_progress.pending_states,
            self._evaluation,
        )

    def _settled(self, arrays: ArrayRecord) -> ArrayRecord:
        if self._plan.settle is None:
            return arrays
        layout = wire.layout_of(arrays)
        return wire.FlatRecord(self._plan.settle(wire.flat_of(arrays, layout)), layout)

    def _evaluates(self, server_round: int) -> bool:
        return server_round % self._plan.evaluate_every == 0 or server_round == self._plan.rounds

    def _train_round(
        self, server_round: int, arrays: ArrayRecord
    ) -> tuple[ArrayRecord, dict[str, float], Sequence[str]]:
        self._scope = f"round {server_round}"
        self._accepted.clear()
        self._cohort.refresh(self._scope)
        self._update_clients()
        if self._in_progress is None:
            asked = self._select(self._with_a_model(arrays), server_round)
            selected, replies = asked.clients, self._exchanged(server_round, arrays, asked)
        else:
            self._in_progress.begin(server_round, arrays)
            selected, replies = self._in_progress.selected, self._in_progress.replies()
        clean = reports.cleaned(replies, self._known, self._reject, required=self._required)
        clean = self._claims.noted(clean, _TRAINED, self._reject)
        new_arrays, means = self.strategy.aggregate_train(server_round, clean)
        metrics = dict(wire.iter_numbers(means or {}))
        if new_arrays is None and wire.WITHHELD not in metrics:
            self._cohort.add_fault(
                wire.EVERYBODY, self._scope, "no usable reply: the model is kept as it was"
            )
        seconds = asked.seconds if self._in_progress is None else self._in_progress.seconds
        if seconds is not None:
            metrics["simulated-seconds"] = seconds
        return arrays if new_arrays is None else new_arrays, metrics, selected

    def _exchanged(self, server_round: int, arrays: ArrayRecord, asked: Asked) -> Iterator[Message]:
        """Send the model to those who are asked; return their replies as they come."""
        clients = self._cohort.clients
        self._known_losses.asked(asked.clients)
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
        """Run a round's second exchange, if the strategy has one and the first had a usable reply."""
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
        """Send messages that are answered with numbers; yield the valid replies, cut to the known names.

        `most` says of how many examples a client can speak; None: that is not known.
        """
        replies = (reply.message for reply in self._cohort.exchange(messages, scope))
        complain = partial(self._complain, scope)
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
        clients = self._cohort.clients
        asked = {i: clients[i] for i in selected if i in clients and self._held_out(i) != 0}
        if self._plan.federated_evaluation and asked:
            grid = CohortGrid(self._cohort.grid, asked)
            messages = list(
                self.strategy.configure_evaluate(server_round, arrays, self._message_config(), grid)
            )
            scope = f"evaluation after round {server_round}"
            replies = self._reported(messages, scope, reports.EVALUATION, self._held_out)
            replies = self._claims.noted(replies, _MEASURED, partial(self._complain, scope))
            metrics |= self._pooled(server_round, replies, scope)
        return metrics

    def _pooled(self, server_round: int, replies: Iterator[Message], scope: str) -> dict[str, float]:
        """Return the figures over what the clients hold out; keep them with their tables."""
        holdings = self._plan.holdings
        if holdings is None or holdings.figures is None:
            means = self.strategy.aggregate_evaluate(server_round, replies)
            return {f"client-{name}": value for name, value in wire.iter_numbers(means or {})}
        pooled = Evaluations(holdings.figures, partial(self._complain, scope), self._name)
        means = self.strategy.aggregate_evaluate(server_round, pooled.taken(replies))
        numbers = dict(wire.iter_numbers(means or {}))
        self._evaluation = pooled.to_json(numbers)
        if wire.ACCURACY in numbers:
            numbers[holdings.task.figure] = numbers.pop(wire.ACCURACY)
        return {f"client-{name}": value for name, value in {**numbers, **pooled.values()}.items()}

    def _trained_on(self, client_id: str) -> int | None:
        info = self._cohort.clients.get(client_id)
        return None if info is None else info.known_examples

    def _held_out(self, client_id: str) -> int | None:
        """Return how many examples a client can be measured on at most; None: that is not known."""
        info = self._cohort.clients.get(client_id)
        if info is not None and info.num_test:
            return info.num_test
        if info is not None and info.hidden:  # It claims one example, and no more than that
            return info.num_examples
        trained = self._trained_on(client_id)
        return None if trained is None else most_held_out(self._plan.local_test_share, trained)

    def _with_a_model(self, arrays: ArrayRecord) -> Mapping[str, ClientInfo]:
        """Return the clients whose group has a model: one that began without a client has none."""
        clients, groups = self._cohort.clients, self._plan.isolation
        if groups == 1:
            return clients
        absent = set(absent_in(wire.flat_of(arrays, wire.layout_of(arrays)), groups))
        late = [client_id for client_id in clients if group_of(client_id, groups) in absent]
        for client_id in late:
            reason = "its group had no client when the training began, so there is no model for it to train"
            self._cohort.add_fault(client_id, self._scope, reason)
        return {i: info for i, info in clients.items() if i not in late}

    def _select(self, clients: Mapping[str, ClientInfo], server_round: int) -> Asked:
        if self.privacy is None or self.privacy.central is None:
            sizes = {i: info.num_examples for i, info in clients.items()}
            plan, known = self._plan, self._known_losses.known
            return ask_groups(sizes, known, plan.selection, plan.seed, server_round, plan.isolation)
        selected, refused = self.privacy.central.select(clients, server_round)
        for client_id, reason in refused.items():
            self._cohort.add_fault(client_id, self._scope, f"refused: {reason}")
            self._cohort.turns[client_id] += 1
        return Asked(selected, len(selected))

    def _message_config(self) -> ConfigRecord:
        return ConfigRecord(dict(self._cohort.message_config))

    def _update_clients(self) -> None:
        clients = self._cohort.clients.values()
        around = self._around
        around.max_examples.update({info.node_id: info.num_examples for info in clients})
        around.names.update({info.node_id: info.client_id for info in clients})
        around.keeps.update({info.client_id: info.keep for info in clients if info.keep is not None})

    def _reject(self, message: Message, reason: str) -> None:
        self._complain(self._scope, message, reason)

    def _complain(self, scope: str, message: Message, reason: str) -> None:
        self._cohort.add_fault(self._name(message), scope, reason)

    def _name(self, message: Message) -> str:
        node_id = message.metadata.src_node_id
        return self._names.get(node_id, f"node {node_id}")


def _known(plan: TrainingPlan, *, of_a_method: bool) -> reports.Known:
    """Return what clients may report with their updates; for a forgetting method, evaluation too."""
    own = reports.EVALUATION if of_a_method else lookup(plan.strategy.name).reports
    return {**reports.TRAINING, **own, **(reports.PRIVATE if plan.privacy.clients_add_noise else {})}


def _required(plan: TrainingPlan) -> list[str]:
    """Return the required metrics of every reply, such as ε where clients report it in the clear."""
    reports_epsilon = plan.privacy.clients_add_noise and plan.privacy.encryption == "none"
    needed = lookup(plan.strategy.name).required(plan.strategy)
    return [*([wire.EPSILON] if reports_epsilon else []), *needed]

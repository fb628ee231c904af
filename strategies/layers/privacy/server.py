"""The server's side of a private run: what clients report, and central noise where the server adds it."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.layers.privacy.accounts import Accounts
from strategies.layers.privacy.central import CentralPrivacy, CentralStrategy
from strategies.layers.privacy.checks import planned_rounds
from strategies.layers.privacy.scoring import Scoring
from strategies.layers.privacy.settings import PrivacySettings
from strategies.server.cohort import Fault
from strategies.server.guard import CheckedReply, all_checked
from strategies.server.settings import SelectionSettings
from strategies.server.wrapper import StrategyWrapper


@final
@dataclass(frozen=True)
class ServerPrivacy:
    """The server's side of a private run.

    Parameters
    ----------
    central
        Draws clients and adds noise; None where clients add it themselves.
    """

    settings: PrivacySettings
    accounts: Accounts
    central: CentralPrivacy | None

    @staticmethod
    def of(
        settings: PrivacySettings, selection: SelectionSettings, rounds: int, seed: int
    ) -> "ServerPrivacy | None":
        """Return the server's side of a run; None where nothing is private."""
        if not settings.on:
            return None
        accounts = Accounts()
        if settings.unit != "client-central":
            return ServerPrivacy(settings, accounts, None)
        lasting = rounds if settings.client_sampling == "poisson" else planned_rounds(rounds, selection)
        return ServerPrivacy(settings, accounts, CentralPrivacy(settings, selection, lasting, seed, accounts))

    def around(self, inner: Strategy, names: Mapping[int, str]) -> Strategy:
        """Return a strategy that keeps the accounts, and adds the noise where that is the server's part."""
        if self.central is not None:
            return CentralStrategy(inner, self.central)
        return AccountedStrategy(inner, self.accounts, names)

    def after_round(self, faults: Iterable[Fault]) -> dict[str, Any]:
        """Note a round's faults and return what was spent, as plain data."""
        for fault in faults:
            self.accounts.failed(fault.client_id, fault.reason)
        document = self.accounts.to_json()
        return document if self.central is None else document | self.central.to_json()

    def restore(self, document: Mapping[str, Any]) -> None:
        """Take up what `after_round` returned."""
        self.accounts.take(Accounts.from_json(document))
        if self.central is not None:
            self.central.restore(document)


@final
class AccountedStrategy(StrategyWrapper):
    """Record the clients' reported ε, and tell each client how often it was asked before.

    A client's own account may know of fewer rounds than it spent in: one that is killed while it trains keeps
    the state it had before, a killed simulation takes all clients back to the last checkpoint, and a
    restarted federation begins with empty ones. A client pays for the rounds that it does not know.

    It belongs inside the guard, so that only replies that count are read, and outside what changes messages.
    """

    def __init__(self, inner: Strategy, accounts: Accounts, names: Mapping[int, str]) -> None:
        super().__init__(inner)
        self._accounts = accounts
        self._names = names

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Note who is asked, and add to each message how often the client was asked before."""
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        for message in messages:
            client_id = self._names[message.metadata.dst_node_id]
            if prior := self._accounts.attempts.get(client_id, 0):
                wire.add_entries(message, {wire.PRIOR_ATTEMPTS: prior})
            self._accounts.asked([client_id])
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Read the reports; the round's metrics get the largest ε."""
        arrays, metrics = self.inner.aggregate_train(server_round, self._read(replies))
        if metrics is not None and self._accounts.epsilons:
            metrics[wire.EPSILON] = max(self._accounts.epsilons.values())
            metrics.pop(wire.NOISE_MULTIPLIER, None)
        return arrays, metrics

    def _read(self, replies: Iterable[Message]) -> Iterator[Message]:
        for reply in all_checked(replies, "AccountedStrategy"):
            for client_id, report in reply.update.reports.items():
                if wire.EPSILON not in report:
                    raise LetheError(
                        f"client {client_id} reports no ε: it runs another version or another config"
                    )
                noise = report.get(wire.NOISE_MULTIPLIER, 0.0)
                self._accounts.reported(client_id, report[wire.EPSILON], noise)
            spent = {wire.EPSILON, wire.NOISE_MULTIPLIER}
            metrics = {name: value for name, value in reply.update.metrics.items() if name not in spent}
            yield CheckedReply.of(reply, replace(reply.update, metrics=metrics))


@final
class RememberedAttempts(StrategyWrapper):
    """Record the clients of a round on disk before anything is sent, so that an interruption keeps them.

    Parameters
    ----------
    names
        Node id -> client-id, kept up to date by its owner.
    before
        Told the round and the clients that are asked.
    """

    def __init__(
        self,
        inner: Strategy,
        names: Callable[[], Mapping[int, str]],
        before: Callable[[int, list[str]], None],
    ) -> None:
        super().__init__(inner)
        self._names = names
        self._before = before

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Record the recipients on disk, then return the wrapped strategy's messages."""
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        names = self._names()
        self._before(server_round, [names[message.metadata.dst_node_id] for message in messages])
        return messages


def prior_attempts(
    lines: Iterable[Mapping[str, Any]], settings: PrivacySettings, last_round: int, training: str
) -> dict[str, int]:
    """Return the number of rounds that each client may have paid for before a training resumes.

    Seeded noise is the same when a round is repeated, so that a repetition releases nothing new; secret noise
    is not, nor is that of clients who draw anew in a repeated masked round, and every attempt counts.

    Parameters
    ----------
    lines
        ``{"round": …, "clients": […], "training": …}``, one per attempt.
    last_round
        The last complete round of the training that goes on.
    training
        Its name; empty: it is a new one, and none of the lines is its own.
    """
    repeats = bool(training) and settings.randomness == "seeded" and not settings.hides_updates
    seen: dict[str, int] = {}
    counted = set()
    for line in lines:
        for client_id in line["clients"]:
            if repeats and line.get("training", training) == training:
                once = (client_id, line["round"])
                if line["round"] > last_round or once in counted:
                    continue
                counted.add(once)
            seen[client_id] = seen.get(client_id, 0) + 1
    return seen


def repeated_rounds(lines: Iterable[Mapping[str, Any]], settings: PrivacySettings, last_round: int) -> int:
    """Return how many interrupted rounds count again in ε when a run goes on."""
    return max(0, len(list(lines)) - last_round) if settings.randomness == "secret" else 0


def privacy_summary(
    settings: PrivacySettings,
    document: Mapping[str, Any],
    client_ids: Sequence[str],
    scoring: Scoring | None = None,
    asked: float = 0.0,
    engine: str | None = None,
) -> dict[str, Any]:
    """Return what a run promises and to whom, for its summary and its report.

    Parameters
    ----------
    document
        As `ServerPrivacy.after_round` returns it.
    scoring
        How they chose neurons by their own data; None: they did not.
    asked
        ε of what else they answered, part of everybody's.
    engine
        How the clients clip the gradients of single examples; None: they do not.
    """
    accounts = Accounts.from_json(document)
    unit = "client" if settings.unit.startswith("client") else "example"
    sampling = {
        "example": "Poisson sampling of examples in every step",
        "client-local": "none: every update is seen by itself",
        "client-central": "Poisson sampling of clients in every round, for those who do not see who took "
        "part; for those who do, such as readers of the run's folder, ε stands without it besides"
        if settings.client_sampling == "poisson"
        else "none: a fixed number of clients, counted without amplification",
    }[settings.unit]
    if scoring is not None:
        sampling += (
            f"; besides, all examples at once for every choice of neurons, with noise multiplier "
            f"{scoring.noise_multiplier:g}"
        )
    known = dict.fromkeys([*client_ids, *accounts.epsilons])
    poisson = settings.unit == "client-central" and settings.client_sampling == "poisson"
    unamplified = document.get("epsilons-unamplified", {})
    return {
        "unit": unit,
        "noise-by": "server" if settings.unit == "client-central" else "client",
        "neighbours": _NEIGHBOURS[settings.unit],
        "delta": settings.delta,
        "clip-norm": settings.clip_norm,
        "sampling": sampling,
        "accountant": settings.accountant,
        "randomness": settings.randomness,
        "engine": engine,
        "analytics-epsilon": asked or None,
        "epsilon": max([asked, *accounts.epsilons.values()]),
        "epsilon-unamplified": max(unamplified.values(), default=0.0) if poisson else None,
        "clients": {
            client_id: _client_row(settings, accounts, client_id, asked)
            | ({"epsilon-unamplified": unamplified.get(client_id, 0.0)} if poisson else {})
            for client_id in known
        },
    }


_NEIGHBOURS = {
    "example": "differ in one example, whose gradients are zero in one of them (zero-out); the number of "
    "examples is the same in both, and public",
    "client-local": "differ in one client's whole data, whose update is zero in one of them (zero-out)",
    "client-central": "differ in one client, whose updates are zero in one of them (zero-out)",
}


def _client_row(
    settings: PrivacySettings, accounts: Accounts, client_id: str, asked: float
) -> dict[str, Any]:
    budget = settings.budget_of(client_id)
    refused, reason = accounts.refusals.get(client_id, (0, ""))
    return {
        "budget": budget if math.isfinite(budget) else None,
        "epsilon": max(asked, accounts.epsilons.get(client_id, 0.0)),
        "noise-multiplier": accounts.noise.get(client_id),
        "refused-rounds": refused,
        "reason": reason,
        "unreported-rounds": accounts.unreported.get(client_id, 0),
    }

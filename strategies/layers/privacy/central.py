"""Client-level privacy with noise on the server, which is trusted.

McMahan, Ramage, Talwar, Zhang, "Learning Differentially Private Recurrent Language Models", ICLR 2018, arXiv
1710.06963, Algorithm 1, with the estimator that divides by the expected number of clients:

    w ← w + (1 / m) ( Σ_k δ_k · min(1, C / ‖δ_k‖) + N(0, σ²C² I) )

m is fixed before a round: the number of clients asked (`fixed`), or qN (`poisson`). It is never the number of
those who answered, so a client that is lost adds nothing and changes nothing else.

Neighbouring runs differ in one client, whose updates are zero in the other, so the sum changes by at most C.
With ``poisson`` each client takes part by itself with probability q, and every client pays for every round
with sample rate q, drawn or not. With ``fixed`` a client pays, without amplification, for the rounds in which
it is asked; a draw of a fixed number is no Poisson sampling and must not be counted as one.

Poisson sampling amplifies towards those who see the models and not who took part. The run's folder names the
clients of every round, in its metrics and its log, so what was spent towards its readers is kept besides.

Differs from the paper: every client weighs the same. With σ = 0 and a clip norm that nothing reaches, it is
federated averaging of clients with equally many examples.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.secret_random import Randomness
from strategies.layers.privacy.accounting import History, Spend, epsilon_of, extended
from strategies.layers.privacy.accounts import Accounts
from strategies.layers.privacy.client import BudgetSpent, noise_for
from strategies.layers.privacy.noise import clipped, noised
from strategies.layers.privacy.settings import PrivacySettings
from strategies.server.guard import CheckedReply, SummedUpdate, all_checked
from strategies.server.selection import cohort_size, require_enough, select_clients
from strategies.server.settings import SelectionSettings
from strategies.server.wrapper import StrategyWrapper


@final
@dataclass
class CentralPrivacy:
    """Draws the clients of a round, and pays for them.

    Parameters
    ----------
    rounds
        Rounds that a budget is to last.
    histories
        Client-id -> what was spent.
    unamplified
        Client-id -> what was spent towards those who see who takes part: the rounds in which it did, at a
        sample rate of 1.
    expected
        m of the present round; 0: nobody can take part, and nothing is released.
    """

    settings: PrivacySettings
    selection: SelectionSettings
    rounds: int
    seed: int
    accounts: Accounts
    histories: dict[str, History] = field(default_factory=dict)
    unamplified: dict[str, History] = field(default_factory=dict)
    expected: float = 0.0

    def __post_init__(self) -> None:
        """Solve the noise from the smallest budget: one noise serves all clients."""
        given = [budget for budget in self.settings.client_budgets.values() if budget > 0]
        budget = min([self.settings.epsilon or math.inf, *given])
        try:
            self.noise_multiplier = noise_for(self.settings, budget, self.rounds, self._rate, 1)
        except BudgetSpent as error:
            raise LetheError(f"privacy.epsilon: {error}") from None

    @property
    def _rate(self) -> float:
        return self.selection.fraction if self.settings.client_sampling == "poisson" else 1.0

    def select(self, clients: Iterable[str], server_round: int) -> tuple[list[str], dict[str, str]]:
        """Draw and charge the clients of a round; return them, and the reasons of those that refuse."""
        spend = Spend(self.noise_multiplier, self._rate, 1)
        refused: dict[str, str] = {}
        able = []
        for client_id in clients:
            if (reason := self._refusal(client_id, spend)) is None:
                able.append(client_id)
            else:
                refused[client_id] = reason
        chosen = self._drawn(able, server_round)
        poisson = self.settings.client_sampling == "poisson"
        self.expected = self._rate * len(able) if poisson else float(len(chosen))
        for client_id in able if poisson else chosen:
            self._pay(client_id, spend)
        for client_id in chosen if poisson else ():
            seen = replace(spend, sample_rate=1.0)
            self.unamplified[client_id] = extended(self.unamplified.get(client_id, ()), seen)
        return chosen, refused

    @property
    def _randomness(self) -> Randomness:
        return Randomness.of(self.settings.randomness)

    def _drawn(self, able: Sequence[str], server_round: int) -> list[str]:
        if self.settings.client_sampling == "fixed":
            return self._drawn_of_fixed_number(able, server_round) if able else []
        taken = self._randomness.stream(self.seed, "poisson", server_round).uniform(len(able)) < self._rate
        return [client_id for client_id, taking in zip(able, taken.tolist(), strict=True) if taking]

    def _drawn_of_fixed_number(self, able: Sequence[str], server_round: int) -> list[str]:
        randomness = self._randomness
        if not randomness.secret:
            return select_clients(able, self.selection, self.seed, server_round)
        require_enough(len(able), self.selection)
        count = cohort_size(len(able), self.selection)
        ordered = sorted(able, key=wire.client_sort_key)
        return [ordered[i] for i in randomness.stream(self.seed).subset(len(ordered), count)]

    def _refusal(self, client_id: str, spend: Spend) -> str | None:
        budget = self.settings.budget_of(client_id)
        if budget == 0:
            return "its privacy budget is 0: it takes no part"
        epsilon = self._epsilon(extended(self.histories.get(client_id, ()), spend))
        if epsilon <= budget:
            return None
        return f"its privacy budget is spent: another round would bring ε to {epsilon:.4g} of {budget:g}"

    def _pay(self, client_id: str, spend: Spend) -> None:
        history = extended(self.histories.get(client_id, ()), spend)
        self.histories[client_id] = history
        self.accounts.reported(client_id, self._epsilon(history), self.noise_multiplier)

    def _epsilon(self, history: History) -> float:
        return epsilon_of(history, self.settings.delta, self.settings.accountant)

    def released(self, total: Tensor, server_round: int) -> Tensor:
        """Return a sum of clipped updates with noise N(0, σ²C² I), shape [size]; as it is where σ = 0."""
        stream = self._randomness.stream(self.seed, "central-noise", server_round)
        return noised(total, self.noise_multiplier, self.settings.clip_norm, stream)

    def to_json(self) -> dict[str, Any]:
        """Return what was spent as plain data."""
        document: dict[str, Any] = {"histories": _rows(self.histories)}
        if self.settings.client_sampling == "poisson":
            document["unamplified"] = _rows(self.unamplified)
            document["epsilons-unamplified"] = {i: self._epsilon(h) for i, h in self.unamplified.items()}
        return document

    def restore(self, document: Mapping[str, Any]) -> None:
        """Take up what `to_json` returned."""
        self.histories = _histories(document["histories"])
        self.unamplified = _histories(document.get("unamplified", {}))


def _rows(histories: Mapping[str, History]) -> dict[str, list[list[float]]]:
    return {i: [[s.noise_multiplier, s.sample_rate, s.steps] for s in h] for i, h in histories.items()}


def _histories(document: Mapping[str, Any]) -> dict[str, History]:
    return {
        client_id: tuple(Spend(float(n), float(q), int(steps)) for n, q, steps in rows)
        for client_id, rows in document.items()
    }


@final
class CentralStrategy(StrategyWrapper):
    """Clip the updates, divide by the expected number of clients, and add noise.

    It belongs inside the guard and outside the log, which then holds each client's share as it was added. The
    updates of a round wait in memory until all are there, because the share depends on how many there are.

    Parameters
    ----------
    inner
        A strategy that adds the weighted mean of the updates.

    Raises
    ------
    LetheError
        If the inner strategy does something else with the updates: C would not bound a client's part then.
    """

    def __init__(self, inner: Strategy, privacy: CentralPrivacy) -> None:
        super().__init__(inner)
        if not self.is_weighted_average:
            raise LetheError("central privacy needs a strategy that averages updates")
        self._privacy = privacy
        self._start: tuple[Tensor, wire.Layout] | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the model; a round without a reply adds its noise to it."""
        layout = wire.layout_of(arrays)
        self._start = wire.flat_of(arrays, layout), layout
        return self.inner.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the noised model, or (None, None) if no client could take part."""
        if self._start is None:
            raise RuntimeError("aggregate_train was called before configure_train")
        expected = self._privacy.expected
        arrays, metrics = self.inner.aggregate_train(server_round, self._shares(replies, expected))
        if expected == 0:
            return arrays, metrics
        start, layout = self._start
        flat = start if arrays is None else wire.flat_of(arrays, layout)
        released = self._released(start, flat, expected, server_round)
        epsilons = self._privacy.accounts.epsilons.values()
        numbers = {**(metrics or {}), wire.EPSILON: max(epsilons, default=0.0)}
        return wire.FlatRecord(released, layout), MetricRecord(numbers)

    def _released(self, start: Tensor, flat: Tensor, expected: float, server_round: int) -> Tensor:
        """Return start + (m (flat − start) + noise) / m; where clients train parts, m is per entry."""
        if self._privacy.noise_multiplier == 0:
            return flat
        counts = self.entry_counts
        m = torch.tensor(expected, dtype=torch.float64) if counts is None else counts.double()
        total = self._privacy.released((flat.double() - start.double()) * m, server_round)
        change = torch.where(m > 0, total / m.clamp(min=1e-300), 0.0)  # m is 0 where no client was asked
        return (start.double() + change).float()

    def _shares(self, replies: Iterable[Message], expected: float) -> Iterator[Message]:
        """Yield clipped updates, scaled so that their mean is their sum over the expected clients."""
        good: list[CheckedReply] = []
        for reply in all_checked(replies, "CentralStrategy"):
            if isinstance(reply.update, SummedUpdate):  # Clients have clipped what they added up
                yield CheckedReply.of(reply, replace(reply.update, weight=expected))
                continue
            delta = clipped(reply.update.delta, self._privacy.settings.clip_norm)
            good.append(CheckedReply.of(reply, replace(reply.update, delta=delta, num_examples=1)))
        factor = len(good) / expected if expected and self.entry_counts is None else 1.0
        for reply in good:
            delta = reply.update.delta if factor == 1.0 else reply.update.delta * factor
            norm = float(torch.linalg.vector_norm(delta))
            yield CheckedReply.of(reply, replace(reply.update, delta=delta, norm=norm))

"""Privacy accounts that go on: training after a private run spends from the accounts of the run.

A retraining on the same data is another release of them. So it begins with what the run, and everything that
was trained after it, has spent: a client whose budget does not allow another round is left out of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, final

from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.layers.privacy.accounts import Accounts
from strategies.layers.privacy.server import RememberedAttempts
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import Build, OnRound, train
from strategies.server.cohort import Cohort

if TYPE_CHECKING:
    from unlearning.run import TrainedRun


class Spending(Protocol):
    """What the clients of a run have spent, in the run and in all that was trained after it."""

    def known(self) -> Mapping[str, Any] | None:
        """Return the accounts as the last round left them; None if there was no round."""

    def attempts(self) -> Mapping[str, int]:
        """Return in how many rounds each client was asked."""

    def asked(self, server_round: int, client_ids: list[str]) -> None:
        """Record the clients of a round before anything is sent."""

    def spent(self, document: Mapping[str, Any]) -> None:
        """Record the accounts after a round."""


@dataclass
class MemorySpending:
    """Accounts that last as long as this object."""

    document: Mapping[str, Any] | None = None
    rounds: dict[str, int] = field(default_factory=dict)

    def known(self) -> Mapping[str, Any] | None:
        """See `Spending`."""
        return self.document

    def attempts(self) -> Mapping[str, int]:
        """See `Spending`."""
        return dict(self.rounds)

    def asked(self, server_round: int, client_ids: list[str]) -> None:
        """See `Spending`."""
        for client_id in client_ids:
            self.rounds[client_id] = self.rounds.get(client_id, 0) + 1

    def spent(self, document: Mapping[str, Any]) -> None:
        """See `Spending`."""
        self.document = document


def train_after(
    run: "TrainedRun",
    plan: TrainingPlan,
    cohort: Cohort,
    flat: Tensor,
    on_round: OnRound,
    build: Build | None = None,
    completed_rounds: int = 0,
) -> Tensor:
    """Train after a run as `strategies.rounds.train` does, from flat parameters; return them, shape [P].

    A private training goes on with the run's accounts. LetheError if no answer of a client could be used in
    any round, or the first round of a private training finds no client that may take part.
    """
    start = Start(wire.FlatRecord(flat, run.layout), completed_rounds=completed_rounds)
    took_part = TookPart(on_round)
    if plan.privacy.on:
        arrays = _train_privately(run, plan, cohort, start, took_part, build)
    else:
        arrays = train(plan, cohort, start, build=build, on_round=took_part)
    took_part.require()
    return wire.flat_of(arrays, run.layout)


def _train_privately(
    run: "TrainedRun",
    plan: TrainingPlan,
    cohort: Cohort,
    start: Start,
    on_round: OnRound,
    build: Build | None,
) -> ArrayRecord:
    spending = run.spending

    def layer(inner: Strategy) -> Strategy:
        if not plan.privacy.clients_add_noise:
            return inner
        return RememberedAttempts(inner, cohort.names, spending.asked)

    def after(result: RoundResult, strategy: Strategy) -> bool | None:
        if result.privacy is not None:
            spending.spent(result.privacy)
        if result.round == start.completed_rounds + 1 and not result.accepted:
            _require_somebody(result)
        return on_round(result, strategy)

    going_on = replace(start, privacy=spending.known(), attempts=spending.attempts())
    return train(plan, cohort, going_on, build=build, layer=layer, on_round=after)


@final
class TookPart:
    """Notes whether an answer of any client was used in a training; passes each round on to `on_round`."""

    def __init__(self, on_round: OnRound) -> None:
        self._on_round = on_round
        self._used = False
        self._reasons: dict[str, None] = {}

    def __call__(self, result: RoundResult, strategy: Strategy) -> bool | None:
        """Note a round; whether the training ends with it is for `on_round` to say."""
        drawn_nobody = not result.selected and not result.faults  # As Poisson sampling may
        self._used |= result.used_an_answer or drawn_nobody
        for fault in result.faults:
            who = "" if fault.client_id == wire.EVERYBODY else f"client {fault.client_id}: "
            self._reasons.setdefault(f"{who}{fault.reason}")
        return self._on_round(result, strategy)

    def require(self) -> None:
        """Raise `LetheError`, with the reasons, if no answer was used: nothing was then learned."""
        if self._used:
            return
        why = "; ".join(list(self._reasons)[:3]) or "nobody answered"
        raise LetheError(f"no client took part in any round, so nothing was learned ({why})")


def _require_somebody(result: RoundResult) -> None:
    """Raise `LetheError` if every client refused; a round without answers for other reasons is no error."""
    refused = [fault for fault in result.faults if fault.reason.startswith("refused: ")]
    others = [fault for fault in result.faults if fault.client_id != "all" and fault not in refused]
    if refused and not others:
        first = refused[0]
        raise LetheError(
            f"no client may train after the run: client {first.client_id} {first.reason}. A budget holds for "
            "the run and all that is trained after it; subtract and fast-fedul train nothing, and with a "
            "privacy.noise-multiplier that leaves some of privacy.epsilon a run can be retrained"
        )


def spent_notes(run: "TrainedRun", before: Mapping[str, Any] | None) -> list[str]:
    """Return notes on what clients have spent in all, if anything was spent since the accounts `before`."""
    after = run.spending.known()
    if not run.plan.privacy.on or after is None or after == before:
        return []
    most, earlier = (max(_epsilons(document).values(), default=0.0) for document in (after, before))
    unit = "client" if run.plan.privacy.unit.startswith("client") else "example"
    return [
        f"privacy: with this the clients have spent at most ε = {most:.4g} in all (per {unit}, "
        f"δ = {run.plan.privacy.delta:g}), {earlier:.4g} of it before",
        *_left_out(_refusals(before), _refusals(after)),
    ]


def _left_out(before: Mapping[str, tuple[int, str]], after: Mapping[str, tuple[int, str]]) -> Iterator[str]:
    for client_id, (count, reason) in after.items():
        if more := count - before.get(client_id, (0, ""))[0]:
            yield f"privacy: client {client_id} was left out of {more} of the rounds: {reason}"


def spent_by(run: "TrainedRun") -> dict[str, float]:
    """Return each client's ε in all, as the server knows it."""
    return _epsilons(run.spending.known())


def _refusals(document: Mapping[str, Any] | None) -> dict[str, tuple[int, str]]:
    return {} if document is None else Accounts.from_json(document).refusals


def _epsilons(document: Mapping[str, Any] | None) -> dict[str, float]:
    return {} if document is None else Accounts.from_json(document).epsilons

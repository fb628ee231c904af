"""The client's side: check the budget, pay, train privately, and let nothing else out.

What leaves a client in a private run is its update with noise, and numbers that do not depend on its data:
steps, ε, noise multiplier. Its loss does not. Whatever cannot be done privately raises, and a client that
raises sends no model.

At the client level every client weighs the same, as a weight by examples would tell how many there are and
would make the largest contribution unbounded; its reply says 1 example, and not how many steps it took, which
tells the same. At the example level the number of examples is public: two data sets have as many, and one
example of them is zeroed out.

Client-level local noise: Gaussian mechanism on the clipped update, as in Geyer, Klein, Nabi, arXiv
1712.07557, with the noise on the client. The server sees each update by itself, so drawing clients amplifies
nothing: the sample rate is 1.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import final

from flwr.app import RecordDict

from strategies.client.training import ClientHalf, ClientJob, LocalResult, planned_steps
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.secret_random import Randomness
from strategies.layers.privacy.accounting import (
    History,
    Spend,
    epsilon_of,
    sample_rate,
    solve_noise,
)
from strategies.layers.privacy.ledger import LedgerFile, read_account, with_rounds, write_account
from strategies.layers.privacy.noise import clipped, noised
from strategies.layers.privacy.scoring import PrivateScorer, Scoring
from strategies.layers.privacy.settings import PrivacySettings
from strategies.models import travelling

_HARMLESS = {"example": (wire.NUM_STEPS,)}
"""Metrics of a client half, by unit, that tell nothing about its data but what is public."""


class BudgetSpent(Exception):
    """The next round would cost more than the client has left, or the client takes no part at all."""


@dataclass(frozen=True)
class ClientPrivacy:
    """What a client knows about its privacy in a run.

    Parameters
    ----------
    budget
        The client's own; infinite if there is none.
    rounds
        How many rounds the budget is to last.
    prior_attempts
        Rounds of this run in which the server has asked the client before. Those that the client's own state
        does not know, because it was killed or the run interrupted, are paid for, unless a ledger has them.
    state
        The client's ``context.state``, in which the account is kept.
    scoring
        How it may choose neurons by its own data; None: not at all.
    asked
        ε of the question of federated analytics that goes before the training; 0: there is none.
    """

    settings: PrivacySettings
    budget: float
    rounds: int
    prior_attempts: int = 0
    state: RecordDict = field(default_factory=RecordDict)
    scoring: Scoring | None = None
    asked: float = 0.0

    def note_refusal(self) -> None:
        """Note that a round reached the client and cost it nothing."""
        account = read_account(self.state)
        write_account(self.state, replace(account, attempts=account.attempts + 1))


@final
@dataclass(frozen=True)
class Payment:
    """A round that is paid for: the noise, and what ε has come to with it."""

    spend: Spend
    epsilon: float


def round_cost(job: ClientJob, settings: PrivacySettings) -> tuple[float, int]:
    """Return the sample rate and the number of steps of one of a client's rounds."""
    if settings.unit == "example":
        return sample_rate(len(job.examples), job.train), planned_steps(len(job.examples), job.train)
    return 1.0, 1


def pay(job: ClientJob, privacy: ClientPrivacy) -> Payment:
    """Write down what the round will cost, before anything is done.

    Raises
    ------
    BudgetSpent
        If it would be more than the client has left; nothing is written then.
    """
    if privacy.budget == 0:
        raise BudgetSpent("its privacy budget is 0: it takes no part")
    ledger = LedgerFile.of(privacy.settings.ledger, job.client_id)
    with nullcontext() if ledger is None else ledger.locked():
        return _paid(job, privacy, ledger)


def _paid(job: ClientJob, privacy: ClientPrivacy, ledger: LedgerFile | None) -> Payment:
    """Pay for a round; the caller has locked the ledger."""
    settings, known = privacy.settings, read_account(privacy.state)
    rate, steps = round_cost(job, settings)
    planned = () if privacy.scoring is None else privacy.scoring.planned
    # A ledger has every payment, of other runs too, even if the state is lost
    kept = None if ledger is None else ledger.read_all()
    asked = max(known.asked, privacy.asked) if kept is None else kept[1]
    left = privacy.budget - asked
    noise = known.noise_multiplier or noise_for(settings, left, privacy.rounds, rate, steps, planned)
    spend = Spend(noise, rate, steps)
    choice = () if privacy.scoring is None else (privacy.scoring.spend,)
    missed = privacy.prior_attempts - known.attempts  # each may have had a choice
    cost = (spend, *choice) if job.keep else (spend,)
    account = known.after((spend, *choice), noise, missed)
    before = account.history if kept is None else kept[0]
    history = with_rounds(before, cost, 1)
    epsilon = epsilon_of(history, settings.delta, settings.accountant)
    if epsilon > left:
        raise BudgetSpent(
            f"its privacy budget is spent: another round would bring ε from "
            f"{epsilon_of(before, settings.delta, settings.accountant) + asked:.4g} to "
            f"{epsilon + asked:.4g}, "
            f"allowed {privacy.budget:g} at δ = {settings.delta:g}"
        )
    if ledger is not None:
        ledger.write(history, asked)
    write_account(privacy.state, account.after(cost, noise))
    return Payment(spend, epsilon + asked)


def pay_answer(client_id: str, privacy: ClientPrivacy, epsilon: float) -> None:
    """Write down what an answer with noise of its own and δ = 0 costs, before it is given.

    Raises
    ------
    BudgetSpent
        If it would be more than the client has left; nothing is written then.
    """
    ledger = LedgerFile.of(privacy.settings.ledger, client_id)
    with nullcontext() if ledger is None else ledger.locked():
        known = read_account(privacy.state)
        history, asked = (known.history, known.asked) if ledger is None else ledger.read_all()
        total = asked + epsilon
        spent = epsilon_of(history, privacy.settings.delta, privacy.settings.accountant)
        if total + spent > privacy.budget:
            raise BudgetSpent(
                f"its privacy budget is spent: an answer would bring ε from {asked + spent:.4g} to "
                f"{total + spent:.4g}, allowed {privacy.budget:g}"
            )
        if ledger is not None:
            ledger.write(history, total)
        write_account(privacy.state, replace(known, asked=known.asked + epsilon))


def noise_for(
    settings: PrivacySettings, budget: float, rounds: int, rate: float, steps: int, besides: History = ()
) -> float:
    """Return the noise multiplier: the one given, or the least with which a budget lasts all rounds.

    What is spent besides the steps, with noise of its own, counts towards the budget.

    Raises
    ------
    BudgetSpent
        If no noise makes the budget last.
    """
    if settings.noise_multiplier >= 0:
        return settings.noise_multiplier
    if not math.isfinite(budget):
        raise LetheError("privacy.epsilon: a noise multiplier is to be solved, but there is no budget")
    try:
        return solve_noise(budget, settings.delta, rate, steps * rounds, settings.accountant, besides)
    except ValueError as error:
        raise BudgetSpent(f"its privacy budget is too small: {error}") from None


def train_privately(half: ClientHalf, job: ClientJob, privacy: ClientPrivacy) -> LocalResult:
    """Run a client half so that its result is private in the run's unit.

    Raises
    ------
    BudgetSpent
        If the round cannot be paid for; no example was looked at then.
    LetheError
        If the half did not train as it was paid for; there is no result then.
    """
    settings = privacy.settings
    if settings.unit == "client-central":
        result = half(job)
        return replace(result, num_examples=1, metrics=_harmless(result, settings.unit))
    payment, scorer = pay(job, privacy), None
    if privacy.scoring is not None:
        randomness = Randomness.of(settings.randomness)
        scorer = PrivateScorer(privacy.scoring, settings.unit == "example", randomness)
        job = replace(job, scorer=scorer)
    metrics = {wire.EPSILON: payment.epsilon, wire.NOISE_MULTIPLIER: payment.spend.noise_multiplier}
    if settings.unit == "example":
        result = _example_level(half, job, settings, payment.spend)
    else:
        result = replace(_client_level(half, job, settings, payment.spend), num_examples=1)
    if scorer is not None and scorer.uses > bool(job.keep):
        raise LetheError(f"strategy '{job.strategy.name}' scored neurons unasked: nothing is sent")
    return replace(result, metrics=_harmless(result, settings.unit) | metrics)


def _harmless(result: LocalResult, unit: str) -> dict[str, float]:
    return {name: result.metrics[name] for name in _HARMLESS.get(unit, ()) if name in result.metrics}


def _example_level(half: ClientHalf, job: ClientJob, settings: PrivacySettings, spend: Spend) -> LocalResult:
    from strategies.layers.privacy.training import PrivateTrainer  # Opacus takes a second

    randomness = Randomness.of(settings.randomness)
    trainer = PrivateTrainer(spend.noise_multiplier, settings.clip_norm, randomness, settings.engine)
    result = half(replace(job, trainer=trainer))
    if not 0 < trainer.steps <= spend.steps:
        raise LetheError(
            f"strategy '{job.strategy.name}' trained {trainer.steps} private steps of {spend.steps}: "
            "nothing is sent"
        )
    return result


def _client_level(half: ClientHalf, job: ClientJob, settings: PrivacySettings, spend: Spend) -> LocalResult:
    before = travelling.vector_of(job.model)
    # A client without examples sends noise of the usual size, so that the server cannot tell
    result = half(job) if len(job.examples) else LocalResult(job.model, 1)
    start = before if result.start is None else result.start
    stream = Randomness.of(settings.randomness).after(job.generator)
    delta = clipped(travelling.vector_of(result.model) - start, settings.clip_norm)
    private = start + noised(delta, spend.noise_multiplier, settings.clip_norm, stream)
    wire.load_flat(result.model, private, travelling.layout_of(result.model))
    return result

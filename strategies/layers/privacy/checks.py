"""What is checked before a private run: that the budget allows to train, and that δ is small enough."""

import math
from collections.abc import Mapping

from strategies.client.settings import TrainSettings
from strategies.client.training import planned_steps
from strategies.core.errors import BadInput
from strategies.layers.privacy.accounting import MAX_NOISE, History, Spend, epsilon_of, extended, sample_rate
from strategies.layers.privacy.scoring import Scoring
from strategies.layers.privacy.settings import PrivacySettings
from strategies.server.settings import SelectionSettings


def planned_rounds(rounds: int, selection: SelectionSettings) -> int:
    """Return in how many rounds a client is expected to take part: what its budget must last for.

    Examples
    --------
    >>> planned_rounds(15, SelectionSettings(fraction=0.5))
    8
    """
    return max(1, math.ceil(rounds * selection.fraction - 1e-9))


def planned_selections(rounds: int, selection: SelectionSettings, refresh: int) -> int:
    """Return how often a client is expected to choose its neurons: not more than once in `refresh` rounds.

    Examples
    --------
    >>> planned_selections(20, SelectionSettings(), refresh=5)
    4
    >>> planned_selections(20, SelectionSettings(fraction=0.1), refresh=5)
    2
    """
    return min(planned_rounds(rounds, selection), math.ceil(rounds / refresh))


def check_feasible(
    settings: PrivacySettings,
    train: TrainSettings,
    rounds: int,
    num_examples: Mapping[str, int],
    scoring: Scoring | None = None,
    asked: float = 0.0,
) -> None:
    """Refuse a budget that no client can train with, before any work.

    Parameters
    ----------
    rounds
        Rounds that a budget is to last.
    num_examples
        Client-id -> number of examples.
    scoring
        How clients choose neurons by their data; None: they do not.
    asked
        ε that goes before the training, out of every budget.

    Raises
    ------
    BadInput
        If δ is not below one over the number of units, or one step costs more than every client's budget.
    """
    if not settings.on:
        return
    _check_delta(settings, num_examples)
    budgets = {client_id: settings.budget_of(client_id) for client_id in num_examples}
    if not any(budgets.values()):
        raise BadInput("privacy.budgets: every client has 0, at least one must train")
    budgets = {client_id: max(0.0, budget - asked) for client_id, budget in budgets.items()}
    if not any(budgets.values()):
        raise BadInput(f"analytics.epsilon: given {asked:g}, which leaves no client anything to train with")
    problems = {
        client_id: problem
        for client_id, n in num_examples.items()
        if budgets[client_id]
        and (problem := _too_small(settings, train, rounds, budgets[client_id], n, scoring))
    }
    if len(problems) == sum(budget > 0 for budget in budgets.values()):
        raise BadInput(f"privacy.epsilon: {next(iter(problems.values()))}")


def _check_delta(settings: PrivacySettings, num_examples: Mapping[str, int]) -> None:
    if settings.unit == "example":
        client_id = max(num_examples, key=lambda i: num_examples[i])
        units, whose = num_examples[client_id], f"client {client_id} has {num_examples[client_id]} examples"
    else:
        units, whose = len(num_examples), f"there are {len(num_examples)} clients"
    if settings.delta * units >= 1:
        raise BadInput(f"privacy.delta: given {settings.delta:g}, allowed below 1/{units}: {whose}")


def _too_small(
    settings: PrivacySettings,
    train: TrainSettings,
    rounds: int,
    budget: float,
    num_examples: int,
    scoring: Scoring | None,
) -> str | None:
    rate, steps = 1.0, 1
    if settings.unit == "example":
        rate, steps = sample_rate(num_examples, train), planned_steps(num_examples, train)
    solved = settings.noise_multiplier < 0
    noise = MAX_NOISE if solved else settings.noise_multiplier
    least = Spend(noise, rate, steps * rounds if solved else 1)
    besides: History = () if scoring is None else scoring.planned if solved else (scoring.spend,)
    accountant = "rdp" if solved else settings.accountant
    cost = epsilon_of(extended(besides, least), settings.delta, accountant)
    if cost <= budget:
        return None
    what = ("one step" if least.steps == 1 else f"{least.steps} steps") + _choices(besides)
    if solved:
        return f"given {budget:g}, too small for {what} whatever their noise; allowed {cost:.3g} or more"
    return (
        f"given {budget:g}, too small for {what}: with privacy.noise-multiplier {noise:g} and sample rate "
        f"{rate:.3g} it costs {cost:.4g} at δ = {settings.delta:g}"
    )


def _choices(besides: History) -> str:
    """Return words for the choices of neurons that are paid for besides the steps."""
    return "".join(
        f", besides {spend.steps} choice(s) of neurons with strategy.score-noise {spend.noise_multiplier:g},"
        for spend in besides
    )

"""What is checked before a private run: that the budget allows to train, and that δ is small enough."""

import math
from collections.abc import Mapping

from strategies.errors import BadInput
from strategies.local_training import planned_steps
from strategies.privacy.accounting import MAX_NOISE, Spend, epsilon_of, sample_rate
from strategies.privacy.settings import PrivacySettings
from strategies.settings import SelectionSettings, TrainSettings


def planned_rounds(rounds: int, selection: SelectionSettings) -> int:
    """Return in how many rounds a client is expected to take part: what its budget must last for.

    Examples
    --------
    >>> planned_rounds(15, SelectionSettings(fraction=0.5))
    8
    """
    return max(1, math.ceil(rounds * selection.fraction - 1e-9))


def check_feasible(
    settings: PrivacySettings,
    train: TrainSettings,
    rounds: int,
    num_examples: Mapping[str, int],
) -> None:
    """Refuse a budget that no client can train with, before any work.

    Parameters
    ----------
    settings, train
        Of the run.
    rounds
        Rounds that a budget is to last.
    num_examples
        Client-id -> number of examples.

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
    problems = {
        client_id: problem
        for client_id, n in num_examples.items()
        if budgets[client_id] and (problem := _too_small(settings, train, rounds, budgets[client_id], n))
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
    settings: PrivacySettings, train: TrainSettings, rounds: int, budget: float, num_examples: int
) -> str | None:
    rate, steps = 1.0, 1
    if settings.unit == "example":
        rate, steps = sample_rate(num_examples, train), planned_steps(num_examples, train)
    solved = settings.noise_multiplier < 0
    noise = MAX_NOISE if solved else settings.noise_multiplier
    least = Spend(noise, rate, steps * rounds if solved else 1)
    if (cost := epsilon_of((least,), settings.delta, "rdp" if solved else settings.accountant)) <= budget:
        return None
    if solved:
        return (
            f"given {budget:g}, too small for {least.steps} steps whatever the noise; "
            f"allowed {cost:.3g} or more"
        )
    return (
        f"given {budget:g}, too small for one step: with privacy.noise-multiplier {noise:g} and sample rate "
        f"{rate:.3g} it costs {cost:.4g} at δ = {settings.delta:g}"
    )

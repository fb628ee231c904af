"""Strategies for which only retraining forgets, and why: they are no average of updates."""

from strategies.errors import BadInput

_RETRAIN = frozenset({"retrain"})

_LIMITS = {
    "gossip": "every client holds a model of its own, into which its neighbours' were mixed",
}
"""Strategy -> why only retraining forgets."""


def check_strategy(strategy: str, method: str) -> None:
    """Refuse a method that a strategy leaves no room for.

    Raises
    ------
    BadInput
        With the reason, and what serves.
    """
    if strategy in _LIMITS and method not in _RETRAIN:
        raise BadInput(f"{method} does not apply to {strategy}: {_LIMITS[strategy]}; use retrain")

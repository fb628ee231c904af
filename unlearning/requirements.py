"""Strategies for which only retraining forgets, and why: they are no average of updates."""

from strategies.core.errors import BadInput

_RETRAIN = frozenset({"retrain"})

_LIMITS = {
    "coded-gd": "every message mixes the data of several clients",
    "one-shot": "the model learned from what all of the ensemble answered, and is no sum of updates",
    "gossip": "every client holds a model of its own, into which its neighbours' were mixed",
}
"""Strategy -> why only retraining forgets."""


_CLIENTS_ONLY = {
    "coded-gd": "other clients hold copies of the data, which such a request does not reach",
}
"""Strategy -> why it forgets nothing but whole clients."""


def check_strategy(strategy: str, method: str, kind: str) -> None:
    """Refuse a method, or a kind of request, that a strategy leaves no room for.

    Raises
    ------
    BadInput
        With the reason, and what serves.
    """
    if strategy in _LIMITS and method not in _RETRAIN:
        raise BadInput(f"{method} does not apply to {strategy}: {_LIMITS[strategy]}; use retrain")
    if strategy in _CLIENTS_ONLY and kind != "client":
        raise BadInput(f"{strategy} does not serve a {kind} request: {_CLIENTS_ONLY[strategy]}")

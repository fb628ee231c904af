"""Algorithms that leave room for few ways to forget, or for none but retraining, and why."""

from strategies.core.errors import BadInput
from strategies.registry import traits_of

_RETRAIN = frozenset({"retrain"})


def check_strategy(strategy: str, method: str, kind: str) -> None:
    """Refuse a method, or a kind of request, that a strategy leaves no room for.

    Raises
    ------
    BadInput
        With the reason, and what serves.
    """
    traits = traits_of(strategy)
    if traits.only_retraining and method not in _RETRAIN:
        raise BadInput(f"{method} does not apply to {strategy}: {traits.only_retraining}; use retrain")
    if traits.only_clients and kind != "client":
        raise BadInput(f"{strategy} does not serve a {kind} request: {traits.only_clients}")

"""unlearning/requirements.py: what strategies leave to forgetting."""

import pytest

from strategies.core.errors import BadInput
from strategies.registry import STRATEGIES
from unlearning import requirements as limits
from unlearning.methods import METHODS
from unlearning.requirements import check_strategy


def test_every_strategy_named_here_exists() -> None:
    assert set(limits._LIMITS) | set(limits._CLIENTS_ONLY) <= set(STRATEGIES)


@pytest.mark.parametrize("strategy", limits._LIMITS)
def test_only_retraining_forgets(strategy: str) -> None:
    check_strategy(strategy, "retrain", "client")
    for method in set(METHODS) - {"retrain"}:
        with pytest.raises(BadInput, match=f"{method} does not apply to {strategy}: .*; use retrain"):
            check_strategy(strategy, method, "client")


@pytest.mark.parametrize("kind", ["class", "sample"])
def test_copies_are_not_reached_by_a_request_for_examples(kind: str) -> None:
    with pytest.raises(BadInput, match=f"coded-gd does not serve a {kind} request: other clients"):
        check_strategy("coded-gd", "retrain", kind)
    check_strategy("gossip", "retrain", kind)


def test_averages_are_left_alone() -> None:
    for method in METHODS:
        check_strategy("per-fedavg", method, "sample")

"""unlearning/requirements.py: what algorithms leave to forgetting, by their traits."""

import pytest

from strategies.core.errors import BadInput
from strategies.registry import all_traits
from unlearning.methods import METHODS
from unlearning.requirements import check_strategy

ONLY_RETRAINING = [traits.name for traits in all_traits() if traits.only_retraining]


def test_some_leave_nothing_else() -> None:
    assert {"coded-gd", "one-shot", "gossip"} <= set(ONLY_RETRAINING)


@pytest.mark.parametrize("strategy", ONLY_RETRAINING)
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

"""Forgetting from private runs: what may work on clients' data, and what the audit says of ε."""

from dataclasses import replace
from typing import Any

import pytest

from strategies.core.errors import BadInput
from strategies.layers.privacy.settings import PrivacySettings
from tests.unlearning.audit_world import trained_run
from unlearning.audit.caveats import privacy_caveats
from unlearning.methods import METHODS
from unlearning.request import ForgetRequest
from unlearning.requirements import check_request
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings


def private_run(unit: str = "example", told: dict[str, Any] | None = None) -> TrainedRun:
    run = trained_run()
    settings = PrivacySettings(unit=unit, epsilon=2.0)  # type: ignore[arg-type]
    return replace(run, plan=replace(run.plan, privacy=settings), privacy=told)


def told(unit: str) -> dict[str, Any]:
    return {
        "unit": unit,
        "delta": 1e-5,
        "sampling": "none",
        "accountant": "prv",
        "clients": {"a": {"epsilon": 1.234}, "b": {"epsilon": None}},
    }


def request() -> ForgetRequest:
    return ForgetRequest(clients=(trained_run().clients[0],))


def visiting() -> list[str]:
    """Return the methods that have clients work on their data."""
    needs = {name: method.needs(ForgetSettings()) for name, method in METHODS.items()}
    able = {name for name, need in needs.items() if need.models != "client"}
    return sorted(
        n for n in able if (needs[n].remaining or needs[n].forgotten) and "client" in METHODS[n].serves
    )


@pytest.mark.parametrize("method", [name for name in visiting() if name not in {"retrain", "distill"}])
def test_methods_whose_clients_would_answer_without_noise_are_refused(method: str) -> None:
    with pytest.raises(
        BadInput, match=rf"^{method} has clients answer without noise, but the run is private"
    ):
        check_request(private_run(), request(), method, ForgetSettings())


def test_retraining_is_private_itself_and_not_refused() -> None:
    check_request(private_run(), request(), "retrain", ForgetSettings())


def test_the_audit_says_what_was_guaranteed_at_which_level() -> None:
    asked = ForgetRequest(clients=("a", "b"))
    by_client = list(privacy_caveats(private_run("client-local", told("client")), asked))
    assert "private with ε = 1.23 for client a as a whole (δ = 1e-05, sampling: none" in by_client[0]
    assert "private without a bound, as there was no noise for client b" in by_client[1]
    by_example = list(privacy_caveats(private_run("example", told("example")), asked))
    assert "for each single example of client a" in by_example[0]
    assert "of the client as a whole it bounds nothing useful" in by_example[0]
    assert "noised updates that were aggregated" in by_example[-1]


def test_a_run_without_privacy_says_nothing_of_it() -> None:
    assert list(privacy_caveats(trained_run(), request())) == []

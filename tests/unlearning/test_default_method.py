"""unlearning/default_method.py: the best method that a run can serve, and retraining where there is none."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from strategies.core.errors import BadInput
from unlearning import default_method, requirements
from unlearning.default_method import PREFERRED, against_poison, with_method
from unlearning.methods import METHODS
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

CLIENT, CLASS = ForgetRequest(clients=("3",)), ForgetRequest(classes=(7,))


def only(monkeypatch: pytest.MonkeyPatch, able: Sequence[str]) -> None:
    """Have only some methods serve."""

    def check(run: Any, asked: ForgetRequest, method: str, settings: ForgetSettings) -> None:
        if method not in able or asked.kind not in METHODS[method].serves:
            raise BadInput(f"{method} cannot")

    for module in (default_method, requirements):
        monkeypatch.setattr(module, "check_request", check)


def chosen(
    monkeypatch: pytest.MonkeyPatch, able: Sequence[str], request: ForgetRequest = CLIENT, groups: int = 1
) -> str:
    """Return the method where only some can serve, in a run of so many groups that were trained apart."""
    only(monkeypatch, able)
    run = SimpleNamespace(plan=SimpleNamespace(isolation=groups))
    return with_method(run, request, ForgetSettings()).method  # type: ignore[arg-type]


def trusted(monkeypatch: pytest.MonkeyPatch, able: Sequence[str], groups: int = 1) -> str:
    """Return the method for a client that may have been poisoned; parameters as for `chosen`."""
    only(monkeypatch, able)
    run = SimpleNamespace(plan=SimpleNamespace(isolation=groups))
    return against_poison(run, CLIENT, ForgetSettings())  # type: ignore[arg-type]


def test_the_best_of_those_that_can_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch, list(METHODS)) == "leave-out"
    assert chosen(monkeypatch, list(METHODS.keys() - {"leave-out"})) == "fast-distill"
    assert chosen(monkeypatch, ["retrain", "distill", "subtract"]) == "distill"
    assert chosen(monkeypatch, ["retrain", "redistill"]) == "redistill"
    assert chosen(monkeypatch, ["retrain", "reprune"]) == "reprune"
    assert chosen(monkeypatch, ["retrain", "subtract", "finetune"]) == "retrain"


@pytest.mark.parametrize(
    ("able", "best"),
    [
        (list(METHODS), "fast-distill"),
        (["leave-out", "distill", "retrain"], "distill"),
        (["leave-out", "federaser", "retrain"], "federaser"),
        (["leave-out", "subtract"], "retrain"),
    ],
)
def test_against_poison_leave_out_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch, able: Sequence[str], best: str
) -> None:
    assert trusted(monkeypatch, able) == best


def test_against_poison_the_default_is_kept_where_it_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trusted(monkeypatch, list(METHODS), groups=2) == "retrain"
    assert trusted(monkeypatch, ["reprune", "federaser"]) == "reprune"


def test_what_no_good_method_serves_is_retrained(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch, list(METHODS.keys() - {"reprune"}), CLASS) == "retrain"


def test_where_groups_were_trained_apart_one_is_retrained(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch, list(METHODS), groups=2) == "retrain"


def test_where_nothing_can_serve_it_is_said_why_retraining_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="retrain cannot"):
        chosen(monkeypatch, [])


def test_a_method_that_is_named_is_kept() -> None:
    named = ForgetSettings(method="negate")
    assert with_method(None, CLIENT, named) is named  # type: ignore[arg-type]


def test_all_that_are_preferred_exist() -> None:
    assert set(PREFERRED) <= METHODS.keys()
    assert all(METHODS["retrain"].serves >= METHODS[name].serves for name in PREFERRED)

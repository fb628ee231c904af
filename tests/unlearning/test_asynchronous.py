"""Forgetting after asynchronous training: every method works or says in one line why not."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from strategies.core.errors import BadInput
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.unlearning.methods.federation import Federation, blobs
from unlearning.forgetting import ForgetResult, forget
from unlearning.methods import METHODS
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

DATA = {str(i): blobs(20 + 4 * i, seed=i) for i in (0, 1, 2, 3)}
CLOCK = SelectionSettings(speeds="lognormal:1")
REQUEST = ForgetRequest(clients=("1",))
SETTINGS = ForgetSettings.stored(
    {
        "epochs": 2,
        "recovery-rounds": 1,
        "unlearning-rounds": 2,
        "fisher-examples": 20,
        "max-retain-drop": 100,
        "influence": {"alphas": "0.5,1"},
    }
)
REFUSED = {"fast-fedul", "fast-distill", "leave-out", "federaser"}
SERVED = [
    n
    for n in METHODS
    if n not in {*REFUSED, "redistill", "reprune", "sifu"} and "client" in METHODS[n].serves
]
NAMES = ["fedbuff", "fedasync"]


def there(name: str) -> Federation:
    return Federation(DATA, strategy=StrategySettings(name=name, buffer_size=2))


@pytest.fixture(scope="module", params=NAMES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Return a run of ten steps, in some of which client 1 was late."""
    path = tmp_path_factory.mktemp("run") / "log"
    return replace(there(request.param).trained(path, 10, drawn=CLOCK), public=blobs(30, seed=9))


def served(run: TrainedRun, method: str, settings: ForgetSettings = SETTINGS) -> ForgetResult:
    return forget(run, REQUEST, method, settings, there(run.plan.strategy.name).cohort())


def test_subtraction_takes_out_what_was_aggregated(run: TrainedRun) -> None:
    """M' = M_F − Σ w·Δ, staleness in w: the initial model and the others' updates."""
    assert run.log is not None
    entries = run.log.entries()
    assert min(e.weight for e in entries if e.client_id == "1") < 0.6
    expected = run.initial.double()
    for entry in entries:
        if entry.client_id != "1":
            expected = expected + entry.weight * run.log.delta(entry.round, entry.client_id).double()
    found = served(run, "subtract").flat
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-6)
    assert not found.equal(run.final)


def test_retraining_is_the_same_training_without_the_client(run: TrainedRun, tmp_path: Path) -> None:
    """To the bit, on the simulated clock."""
    without = {i: data for i, data in DATA.items() if i != "1"}
    other = replace(there(run.plan.strategy.name), data=without)
    again = other.trained(tmp_path / "log", 10, drawn=CLOCK)
    assert served(run, "retrain").flat.equal(again.final)
    assert not again.final.equal(run.final)


@pytest.mark.parametrize("method", SERVED)
def test_the_other_methods_give_a_model_and_the_same_one_twice(run: TrainedRun, method: str) -> None:
    once = served(run, method)
    assert once.flat.isfinite().all()
    assert not once.flat.equal(run.final)
    assert served(run, method).flat.equal(once.flat)


@pytest.mark.parametrize("method", sorted(REFUSED))
def test_what_takes_updates_for_fresh_is_refused(run: TrainedRun, method: str) -> None:
    name = run.plan.strategy.name
    with pytest.raises(BadInput, match=re.escape(f"but with {name} they may be late; use subtract (lazy)")):
        served(run, method)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("subtract", SETTINGS.with_own("subtract", form="renormalised")),
        ("distill", SETTINGS.with_own("distill", start="fast-fedul")),
    ],
)
def test_and_so_are_the_forms_that_do(run: TrainedRun, method: str, settings: ForgetSettings) -> None:
    with pytest.raises(BadInput, match="takes every update as made from the model of its round"):
        served(run, method, settings)

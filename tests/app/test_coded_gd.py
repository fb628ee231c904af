"""Coded gradient descent from end to end in one process tree: slow clients change nothing but the time."""

from pathlib import Path

import pytest

from app.config.run_config import RunConfig
from app.workflows import forget, train
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.runs.folder import RunFolder
from strategies.runs.tensor_file import read_sealed
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

SMALL = (
    "run.workers=1",
    "run.rounds=3",
    "data.train-limit=200",
    "data.test-limit=50",
    "data.clients=5",
    "data.partition=shards",
    "model.name=mlp",
    "model.hidden=8",
    "strategy.name=coded-gd",
    "train.learning-rate=0.5",
    "selection.speeds=pareto:1.2",
)
CLIENT_4 = ForgetRequest(clients=("4",))


def trained(home: Path, *overrides: str) -> RunFolder:
    key = f"run.certificate-key={home / 'certificate.pem'}"
    return train(RunConfig().with_overrides([f"run.home={home}", key, *SMALL, *overrides]))


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return a run that goes on without the slowest two of five."""
    some = ("selection.fraction=0.6", "selection.over-selection=1.7")
    return trained(tmp_path_factory.mktemp("runs"), "strategy.stragglers=2", *some)


def test_slow_clients_change_nothing_but_the_time(coded: RunFolder, tmp_path: Path) -> None:
    whole = trained(tmp_path, "strategy.stragglers=0")
    first, second = coded.read_metrics()[-1], whole.read_metrics()[-1]
    assert (first["decoded-from"], second["decoded-from"]) == (3, 5)
    assert first["simulated-seconds"] < second["simulated-seconds"]
    assert first["test-loss"] == pytest.approx(second["test-loss"], abs=1e-4)


def test_a_client_is_forgotten_with_a_new_code(coded: RunFolder) -> None:
    path = coded.forget_folder(forget(coded, CLIENT_4, ForgetSettings(method="retrain")))
    after, before = read_sealed(path / "model.safetensors").tensors, coded.read_model()
    layout = wire.Layout.of(before)
    assert not layout.flatten(after).equal(layout.flatten(before))


def test_copies_and_mixtures_are_refused_before_any_work(coded: RunFolder) -> None:
    with pytest.raises(BadInput, match="subtract does not apply to coded-gd: every message mixes the data"):
        forget(coded, CLIENT_4, ForgetSettings(method="subtract"))
    with pytest.raises(BadInput, match="coded-gd does not serve a class request: other clients hold copies"):
        forget(coded, ForgetRequest(classes=(1,)), ForgetSettings(method="retrain"))

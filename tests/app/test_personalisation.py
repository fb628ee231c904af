"""Personalisation from end to end in one process tree: train, resume, forget, and what is refused."""

from pathlib import Path

import pytest

from app.config.run_config import RunConfig
from app.simulation.kept_models import CLIENTS
from app.workflows import forget, resume, train
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.personal.measuring import FIGURES
from strategies.runs.files import read_json
from strategies.runs.folder import RunFolder
from strategies.runs.tensor_file import read_sealed
from tests.app.runs import StopAfter, Stopped, flat_model
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

SMALL = (
    "run.rounds=3",
    "run.workers=1",
    "data.clients=4",
    "data.partition=shards",
    "data.train-limit=300",
    "data.test-limit=200",
    "data.public=0",
    "model.name=mlp",
    "model.hidden=16",
    "train.learning-rate=0.05",
)
CLIENT_3 = ForgetRequest(clients=("3",))


def config(home: Path, name: str, *overrides: str) -> RunConfig:
    key = f"run.certificate-key={home / 'keys' / 'certificate.pem'}"
    placed = (f"run.home={home}", f"run.name={name}", f"strategy.name={name}", key)
    return RunConfig().with_overrides([*placed, *SMALL, *overrides])


@pytest.fixture(scope="module")
def plain(home: Path) -> RunFolder:
    return train(config(home, "fedavg"))


@pytest.fixture(scope="module")
def ditto(home: Path) -> RunFolder:
    return train(config(home, "ditto", "strategy.ditto-lambda=0.5"))


def test_dittos_global_model_is_fedavgs_bit_for_bit(plain: RunFolder, ditto: RunFolder) -> None:
    assert flat_model(ditto).equal(flat_model(plain))


def test_without_an_inner_step_per_fedavg_is_fedavg(plain: RunFolder, home: Path) -> None:
    run = train(config(home, "per-fedavg", "strategy.inner-rate=0"))
    assert flat_model(run).equal(flat_model(plain))
    final = run.read_summary()["final"]
    assert final["personal-accuracy"] == final["global-accuracy"]


def test_clients_gain_and_every_figure_is_reported(ditto: RunFolder) -> None:
    """Each client holds a few classes of ten: its own model knows those better than the shared one."""
    final = ditto.read_summary()["final"]
    assert set(FIGURES) <= set(final)
    assert final["personal-accuracy"] > final["global-accuracy"] + 10
    assert set(ditto.read_summary()["client-models"]) == {"0", "1", "2", "3"}


def test_a_resumed_run_has_the_same_personal_models(ditto: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(config(tmp_path, "ditto", "strategy.ditto-lambda=0.5"), StopAfter(2))
    cut = resume(RunFolder.open("ditto", tmp_path))
    assert cut.read_metrics()[-1]["clients"] == ditto.read_metrics()[-1]["clients"]


def test_forgetting_retrains_the_personal_models_as_well(ditto: RunFolder, home: Path) -> None:
    """As a run of the others alone: personal models on a lineage of their own, from the start."""
    name = forget(ditto, CLIENT_3, ForgetSettings(method="retrain"))
    path = ditto.forget_folder(name)
    details = read_json(path / "result.json")["details"]
    assert details["rounds"] == 3
    assert details["personal-accuracy"] != ditto.read_summary()["final"]["personal-accuracy"]
    assert len(read_sealed(path / CLIENTS).tensors) == 3


def test_what_leaves_the_personal_models_as_they_are_is_refused(ditto: RunFolder) -> None:
    with pytest.raises(
        BadInput, match=r"subtract changes only the model that all clients share, but .* use retrain"
    ):
        forget(ditto, CLIENT_3, ForgetSettings(method="subtract"))


def test_per_fedavg_forgets_as_fedavg_does(home: Path) -> None:
    """What clients send is averaged, so subtraction applies; retraining serves every kind of request."""
    folder = train(config(home, "per-fedavg", "run.name=meta", "run.rounds=2", "strategy.inner-rate=0.1"))
    for request, method in ((CLIENT_3, "subtract"), (ForgetRequest(classes=(1,)), "retrain")):
        path = folder.forget_folder(forget(folder, request, ForgetSettings(method=method)))
        after = read_sealed(path / "model.safetensors").tensors
        assert not wire.Layout.of(after).flatten(after).equal(flat_model(folder))

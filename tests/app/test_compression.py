"""Compression from end to end in one process tree: train, interrupt, resume, forget."""

import json
from pathlib import Path

import pytest
import torch

from app.config.run_config import RunConfig
from app.workflows import forget, resume, train
from strategies.core import wire
from strategies.log.update_log import UpdateLog
from strategies.runs.folder import RunFolder
from strategies.runs.tensor_file import read_sealed
from tests.app.runs import StopAfter, Stopped, flat_model
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

SMALL = (
    "run.rounds=6",
    "run.workers=2",
    "data.clients=3",
    "data.train-limit=300",
    "data.test-limit=200",
    "data.public=0",
    "model.name=mlp",
    "model.hidden=32",
)
CHAIN = (
    "compression.codec=top-k+int8",
    "compression.keep=0.05",
    "compression.down-codec=top-k+int8",
    "compression.down-keep=0.1",
)


def config(home: Path, *overrides: str) -> RunConfig:
    return RunConfig().with_overrides([f"run.home={home}", *SMALL, *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(config(tmp_path_factory.mktemp("runs"), "run.name=finished", *CHAIN))


def test_little_travels_and_the_model_learns(finished: RunFolder) -> None:
    parameters = flat_model(finished).numel()
    lines = finished.read_metrics()
    dense = 3 * 4 * parameters
    assert all(line["bytes-up"] < dense / 15 + 600 for line in lines)
    assert lines[0]["bytes-down"] > dense
    assert all(line["bytes-down"] < dense / 10 + 1500 for line in lines[1:])
    assert lines[-1]["test-accuracy"] > lines[0]["test-accuracy"] + 20
    assert json.loads((finished.path / "summary.json").read_text())["faults"] == []


def test_an_interrupted_run_resumes_to_the_same_model(finished: RunFolder, tmp_path: Path) -> None:
    settings = config(tmp_path, "run.name=cut", "run.workers=1", *CHAIN)
    with pytest.raises(Stopped):
        train(settings, StopAfter(3))
    again = resume(RunFolder.open("cut", tmp_path))
    assert flat_model(again).equal(flat_model(finished))


def test_a_neutral_codec_is_no_codec_to_the_bit(tmp_path: Path) -> None:
    plain = train(config(tmp_path, "run.name=plain", "run.rounds=2"))
    same = train(config(tmp_path, "run.name=same", "run.rounds=2", "compression.codec=identity"))
    assert flat_model(same).equal(flat_model(plain))


def test_a_client_is_subtracted_as_it_was_aggregated(finished: RunFolder) -> None:
    """What remains is the initial model and the others' decoded updates, whose weights stay as they were."""
    name = forget(finished, ForgetRequest(clients=("1",)), ForgetSettings(method="subtract"))
    log = UpdateLog.open(finished.log_path)
    before = finished.read_initial()
    layout = wire.Layout.of(before)
    expected = layout.flatten(before).double()
    for server_round in log.rounds():
        entries = log.entries(server_round)
        total = sum(entry.weight for entry in entries)
        for entry in entries:
            if entry.client_id != "1":
                expected += entry.weight * log.delta(server_round, entry.client_id).double() / total
    after = read_sealed(finished.path / "forget" / name / "model.safetensors").tensors
    torch.testing.assert_close(layout.flatten(after), expected.float(), atol=1e-5, rtol=1e-4)

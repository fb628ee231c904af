"""Asynchronous training from end to end in one process tree: train, interrupt, resume, forget."""

import json
from pathlib import Path

import pytest

from app.config.run_config import RunConfig
from app.workflows import forget, resume, train
from strategies.core import wire
from strategies.runs.folder import RunFolder
from strategies.runs.tensor_file import read_sealed
from tests.app.runs import StopAfter, Stopped, flat_model
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

SMALL = (
    "run.rounds=8",
    "run.workers=2",
    "data.clients=4",
    "data.train-limit=300",
    "data.test-limit=200",
    "data.public=0",
    "model.name=mlp",
    "model.hidden=32",
    "strategy.name=fedbuff",
    "strategy.buffer-size=2",
)
CHAIN = (
    "compression.codec=top-k+int8",
    "compression.keep=0.05",
    "compression.down-codec=top-k+int8",
    "compression.down-keep=0.1",
)
CLOCK = "selection.speeds=lognormal:1"


def config(home: Path, *overrides: str) -> RunConfig:
    return RunConfig().with_overrides([f"run.home={home}", *SMALL, *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(config(tmp_path_factory.mktemp("runs"), "run.name=finished", CLOCK, *CHAIN))


@pytest.mark.parametrize("last", [3, 6])
def test_an_interrupted_run_resumes_to_the_same_model(finished: RunFolder, tmp_path: Path, last: int) -> None:
    """With another number of workers, and clients at work whose residual is that of when they were asked."""
    with pytest.raises(Stopped):
        train(config(tmp_path, "run.name=cut", "run.workers=1", CLOCK, *CHAIN), StopAfter(last))
    again = resume(RunFolder.open("cut", tmp_path))
    assert flat_model(again).equal(flat_model(finished))
    ours, theirs = (f.read_metrics() for f in (again, finished))
    assert [line["accepted"] for line in ours] == [line["accepted"] for line in theirs]
    assert max(line["staleness"] for line in theirs) > 0


def test_without_a_clock_replies_count_as_they_come(tmp_path: Path) -> None:
    mixed = ("strategy.name=fedasync", "strategy.buffer-size=3", "run.rounds=20")
    lines = train(config(tmp_path, *mixed)).read_metrics()
    assert all("simulated-seconds" not in line and len(line["accepted"]) == 1 for line in lines)
    assert {i for line in lines for i in line["accepted"]} == set("0123")
    assert lines[-1]["test-accuracy"] > lines[0]["test-accuracy"]


def test_a_client_is_forgotten_and_the_report_is_written(finished: RunFolder) -> None:
    """What is left without it is the initial model and what the others added."""
    name = forget(finished, ForgetRequest(clients=("1",)), ForgetSettings(method="subtract"))
    after = read_sealed(finished.path / "forget" / name / "model.safetensors").tensors
    assert not wire.Layout.of(after).flatten(after).equal(flat_model(finished))
    assert json.loads((finished.path / "summary.json").read_text())["strategy"] == "fedbuff"

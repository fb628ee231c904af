"""Secure aggregation from end to end in one process tree: train, interrupt, resume, forget, refuse."""

import json
from pathlib import Path

import pytest
import torch

from app.config import RunConfig
from app.workflows import audit, forget, resume, train
from strategies import wire
from strategies.errors import BadInput
from strategies.run_folder import RunFolder
from strategies.tensor_file import read_sealed
from tests.app.runs import StopAfter, Stopped, flat_model
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

SMALL = (
    "run.rounds=3",
    "run.workers=1",
    "data.clients=4",
    "data.train-limit=400",
    "data.test-limit=100",
    "data.public=0",
    "model.name=mlp",
    "model.hidden=16",
    "log.enabled=false",
)
SECURE = ("privacy.secure-aggregation=true",)


def config(home: Path, *overrides: str) -> RunConfig:
    return RunConfig().with_overrides([f"run.home={home}", *SMALL, *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(config(tmp_path_factory.mktemp("runs"), "run.name=finished", *SECURE))


def test_the_model_is_that_of_plain_averaging(finished: RunFolder, tmp_path: Path) -> None:
    """Cut at 2^-32 of a weighted update, not at 2^-39, they agree to a rounding of float32 each round."""
    plain = train(config(tmp_path, "run.name=plain"))
    assert torch.allclose(flat_model(finished), flat_model(plain), rtol=0, atol=1e-6)
    lines, plain_lines = finished.read_metrics(), plain.read_metrics()
    assert [line["test-accuracy"] for line in lines] == [line["test-accuracy"] for line in plain_lines]
    assert [line["train-loss"] for line in lines] == pytest.approx([x["train-loss"] for x in plain_lines])


def test_nothing_of_a_single_client_is_written_down(finished: RunFolder) -> None:
    summary = finished.read_summary()
    assert summary["clients"] == {"0": {}, "1": {}, "2": {}, "3": {}}
    assert summary["faults"] == []
    assert summary["secure-aggregation"]["threshold"] == 0.67
    assert "num-steps" not in json.dumps(finished.read_metrics())
    assert not finished.log_path.exists()


def test_an_interrupted_run_resumes_to_the_same_model(finished: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(config(tmp_path, "run.name=cut", *SECURE), StopAfter(2))
    again = resume(RunFolder.open("cut", tmp_path))
    assert flat_model(again).equal(flat_model(finished))


def test_a_class_and_a_client_are_forgotten_by_masked_retraining(finished: RunFolder) -> None:
    for request in (ForgetRequest(clients=("1",)), ForgetRequest(classes=(3,))):
        path = finished.forget_folder(forget(finished, request, ForgetSettings(method="retrain")))
        result = json.loads((path / "result.json").read_text(encoding="utf-8"))
        assert result["warnings"] == []
        assert result["traffic"]["visits"] >= 3 * 3 * 4
        state = dict(read_sealed(path / "model.safetensors").tensors)
        assert not wire.Layout.of(state).flatten(state).equal(flat_model(finished))


def test_a_method_that_asks_clients_one_by_one_is_refused(finished: RunFolder) -> None:
    with pytest.raises(BadInput, match="trained under secure aggregation, where the server gets sums only"):
        forget(finished, ForgetRequest(classes=(3,)), ForgetSettings(method="fisher"))


def test_an_audit_of_masked_clients_is_refused_unless_their_answers_are_asked_for(
    finished: RunFolder,
) -> None:
    """Refused before any work; with sums there is no membership attack, and its figure is missing, not 0."""
    request = ForgetRequest(clients=("2",))
    with pytest.raises(
        BadInput, match=r'^audit\.answers: given "auto", but clients of a run with privacy\.sec'
    ):
        audit(finished, request, ["retrain"], AuditSettings())
    assert not list((finished.path / "forget").glob("*2-retrain"))
    forget(finished, request, ForgetSettings(method="retrain"))
    report = audit(finished, request, ["retrain"], AuditSettings(answers="aggregate"))
    before = report.measurements["before"]
    assert before.missing == {}
    assert before.sums_only == ("0", "1", "2", "3")
    assert before.unlearning_accuracy is not None
    assert before.mia_efficacy is None


def test_too_many_examples(tmp_path: Path) -> None:
    """Every client has 100 examples, 50 are allowed: all refuse, and the run ends with its first model."""
    folder = train(config(tmp_path, "run.name=many", "run.rounds=1", "privacy.max-examples=50", *SECURE))
    reasons = {fault["reason"] for fault in folder.read_summary()["faults"] if fault["client"] == "0"}
    assert any("privacy.max-examples allows 50" in reason for reason in reasons)
    initial = folder.read_initial()
    assert flat_model(folder).equal(wire.Layout.of(initial).flatten(initial))


def test_client_level_privacy_and_masks(tmp_path: Path) -> None:
    for unit in ("client-local", "client-central"):
        private = (f"privacy.unit={unit}", "privacy.noise-multiplier=0.2", "privacy.delta=0.01")
        folder = train(config(tmp_path, f"run.name={unit}", "run.rounds=2", *private, *SECURE))
        summary = folder.read_summary()
        assert summary["faults"] == []
        assert summary["privacy"]["epsilon"] > 0
        assert all(row["epsilon"] > 0 for row in summary["privacy"]["clients"].values())

"""A deployed federation: what it computes is what one process computes, and nothing that fails ends a run."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from app.config import RunConfig
from app.run_verification import verify_run
from app.workflows import audit, forget, train
from benchmarks.deployed.federation import Federation
from strategies.run_folder import RunFolder
from strategies.settings import Scalar
from strategies.tensor_file import read_sealed
from tests.deployed.conftest import CLIENTS, SMALL
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

FORGET: dict[str, Scalar] = {
    "request.run": "first",
    "request.clients": "2",
    "forget.method": "finetune",
    "forget.epochs": 1,
}
REQUEST = ForgetRequest(clients=("2",))


def home(federation: Federation) -> dict[str, Scalar]:
    """Return the keys that put runs and their key into the federation's folder."""
    key = federation.folder / "certificate" / "certificate.pem"
    return {"run.home": str(federation.runs), "run.certificate-key": str(key)}


def until(reached: Callable[[], bool], federation: Federation, name: str, seconds: float = 400.0) -> None:
    """Wait for something that a run is to do; show its log if it does not."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, federation.output(name)[-3000:]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def trained(federation: Federation) -> RunFolder:
    """Return a run that the federation trained."""
    printed = federation.run({**SMALL, **home(federation), "run.name": "first"}, "train")
    assert f"run folder: {federation.runs / 'first'}" in printed, printed
    return RunFolder.open("first", federation.runs)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return the same run, trained in one process tree."""
    folder = tmp_path_factory.mktemp("local")
    places = [f"run.home={folder}", f"run.certificate-key={folder / 'certificate.pem'}", "run.name=first"]
    return train(
        RunConfig().with_overrides([*places, "run.workers=1", *(f"{k}={v}" for k, v in SMALL.items())])
    )


def test_it_trains_the_model_of_one_process(trained: RunFolder, local: RunFolder) -> None:
    """Same seed, same clients, same rounds: the same parameters up to the order of floating-point sums."""
    expected = local.read_model()
    for name, tensor in trained.read_model().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6)
    summary = trained.read_summary()
    assert list(summary["clients"]) == list(CLIENTS)
    assert summary["faults"] == []


def test_it_forgets_and_audits_as_one_process_does(
    federation: Federation, trained: RunFolder, local: RunFolder
) -> None:
    """Fine-tuning and the retraining of the audit reach the deployed clients; the audit's figures agree."""
    for workflow in ("forget", "audit"):
        told = {**SMALL, **home(federation), **FORGET, "run.workflow": workflow}
        printed = federation.run(told, workflow)
        assert "run folder" in printed, printed
    settings = ForgetSettings(method="finetune", epochs=1)
    forget(local, REQUEST, settings)
    audit(local, REQUEST, ["finetune"], AuditSettings())
    for method in ("finetune", "retrain"):
        inside = Path("forget") / f"client-2-{method}" / "model.safetensors"
        expected = read_sealed(local.path / inside).tensors
        for name, tensor in read_sealed(trained.path / inside).tensors.items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6)
    figures, wanted = (_audit(run)["after"] for run in (trained, local))
    assert set(figures) == set(wanted)
    assert all(check.status != "failed" for check in verify_run(trained))


def _audit(run: RunFolder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.path / "forget/client-2-finetune/audit.json").read_text())
    return found


def test_a_node_without_a_registered_key_or_with_a_foreign_authority_is_refused(
    federation: Federation, tmp_path: Path
) -> None:
    """The SuperLink turns the first away; the second turns the SuperLink away."""
    from app.federation_keys import make_keys

    foreign = make_keys(tmp_path / "keys", ["127.0.0.1"], ()).folder / "ca.pem"
    federation.start_node("stranger")
    federation.start_node("mistaken", key="twin", root=foreign)
    refusals = {"stranger": "Failed to activate SuperNode", "mistaken": "CERTIFICATE_VERIFY_FAILED"}
    for name, reason in refusals.items():
        until(partial(_has_ended, federation, name), federation, name)
        assert reason in federation.output(name)
        assert "SuperNode ID" not in federation.output(name)
        federation.kill(name)


def _has_ended(federation: Federation, name: str) -> bool:
    return not federation.is_running(name)

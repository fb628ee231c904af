"""A deployed federation: what it computes is what one process computes, and nothing that fails ends a run."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from app.deployment.federation_keys import make_keys
from app.forgettings.signing_key import signing_key
from app.forgettings.verify_run import verify_run
from app.workflows import audit, forget, go_on
from benchmarks.deployed.federation import Federation
from strategies.core.settings import Scalar
from strategies.runs.folder import RunFolder
from strategies.runs.tensor_file import read_sealed
from tests.deployed.conftest import CLIENTS, SMALL, home, until
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

FORGET: dict[str, Scalar] = {
    "request.run": "first",
    "request.clients": "2",
    "forget.method": "finetune",
    "forget.finetune.epochs": 1,
}
REQUEST = ForgetRequest(clients=("2",))
SHADOWS = 3


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
    settings = ForgetSettings.of("finetune", epochs=1)
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


def test_shadow_models_over_a_network_are_those_of_one_process(
    federation: Federation, trained: RunFolder, local: RunFolder
) -> None:
    """Each is trained, forgets and is retrained by the connected clients, which score their own examples."""
    for run in (trained, local):
        if "client-2-finetune" not in run.forget_requests():
            forget(run, REQUEST, ForgetSettings.of("finetune", epochs=1))
    told = {**SMALL, **home(federation), **FORGET, "run.workflow": "audit", "audit.shadows": SHADOWS}
    printed = federation.run(told, "audit")
    assert "run folder" in printed, printed
    audit(local, REQUEST, ["finetune"], AuditSettings(shadows=SHADOWS))
    places = ("shadows/*/model.safetensors", "shadows/*/left/*", "forget/client-2-retrain/retrain-seed-*")
    models = [path.relative_to(local.path) for place in places for path in local.path.glob(place)]
    assert len(models) == 3 * SHADOWS  # Trained, and what the method and retraining left
    for inside in models:
        expected = read_sealed(local.path / inside).tensors
        for name, tensor in read_sealed(trained.path / inside).tensors.items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)
    areas = [_audit(run)["shadows"]["forgotten"]["area"]["value"] for run in (trained, local)]
    assert areas[0] == pytest.approx(areas[1], abs=0.02)
    printed = federation.run({**told, "audit.answers": "aggregate"}, "audit")
    assert "run folder" in printed, printed
    own = _audit(trained)["shadows"]
    assert own["by-client"]["2"]["area"] == own["forgotten"]["area"]
    assert own["forgotten"]["area"]["value"] == pytest.approx(areas[0], abs=1e-6)
    assert own["most-exposed"] == []


def test_it_goes_on_after_a_forgetting_as_one_process_does(
    federation: Federation, trained: RunFolder, local: RunFolder
) -> None:
    """The forgotten client, which is connected, is asked for nothing in the new rounds."""
    name = "client-0-subtract"
    for run in (trained, local):
        if name not in run.forget_requests():
            forget(run, ForgetRequest(clients=("0",)), ForgetSettings(method="subtract"))
    told: dict[str, Scalar] = {"run.workflow": "continue", "request.run": "first", "request.after": name}
    printed = federation.run({**SMALL, **home(federation), **told, "request.rounds": 1}, "continue")
    rounds = trained.read_summary()["completed-rounds"] + 1
    assert f"run folder: {federation.runs / f'first-to-{rounds}'}" in printed, printed
    made = RunFolder.open(f"first-to-{rounds}", federation.runs)
    expected = go_on(local, 1, name).read_model()
    for key, tensor in made.read_model().items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-4, atol=1e-6)
    assert made.read_metrics()[-1]["accepted"] == [i for i in CLIENTS if i != "0"]
    assert made.read_summary()["faults"] == []


def _audit(run: RunFolder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.path / "forget/client-2-finetune/audit.json").read_text())
    return found


def test_a_node_without_a_registered_key_or_with_a_foreign_authority_is_refused(
    federation: Federation, tmp_path: Path
) -> None:
    """The SuperLink turns the first away; the second turns the SuperLink away."""
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


def test_no_key_and_no_place_of_one_is_logged(federation: Federation, trained: RunFolder) -> None:
    """What SuperLink, SuperNodes and runs print, and what a run leaves, says nothing of private keys."""
    certificate_key = Path(str(home(federation)["run.certificate-key"]))
    private = [path for path in federation.keys.rglob("*") if path.is_file() and _is_private(path)]
    assert {path.name for path in private} >= {"ca.key", "server.key", *CLIENTS}
    signing_key(certificate_key)  # There already, if a run has forgotten before
    lines = [line for path in (*private, certificate_key) for line in path.read_text().splitlines()]
    secrets = {line for line in lines if not line.startswith("-----")}
    secrets |= {str(path) for path in private}
    written = [
        *(federation.folder / "output").iterdir(),
        *trained.path.rglob("*.json*"),
        *trained.path.rglob("*.toml"),
    ]
    assert len(written) > 10
    for path in written:
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not [secret for secret in secrets if secret in text], path


def _is_private(path: Path) -> bool:
    return path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("what", ["model.safetensors", "log/index.sqlite", "log/00001/2.safetensors"])
def test_a_tampered_file_of_a_deployed_run_is_detected(trained: RunFolder, tmp_path: Path, what: str) -> None:
    copied = RunFolder(Path(shutil.copytree(trained.path, tmp_path / "first")))
    assert all(check.status != "failed" for check in verify_run(copied))
    path = copied.path / what
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert any(check.status == "failed" for check in verify_run(copied))

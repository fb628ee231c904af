"""app/forgettings/certify.py: a forgetting leaves a certificate that says what was done to which files."""

import hashlib
from pathlib import Path

import pytest

from app.forgettings.certify import certify
from app.forgettings.names import CERTIFICATE
from app.forgettings.signing_key import signing_key
from app.workflows import audit, forget
from app.workflows.opened import title_of
from app.workflows.session import open_session
from strategies.core.errors import BadInput, RunCorrupt
from strategies.log.update_log import UpdateLog
from strategies.runs.files import read_json, write_json
from strategies.runs.folder import RunFolder
from tests.app.conftest import CLIENT_2, SUBTRACT
from unlearning import certificate
from unlearning.certificate import Certificate
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings


def certified(folder: RunFolder, name: str = "client-2-subtract") -> Certificate:
    return certificate.read((folder.path / "forget" / name / CERTIFICATE).read_bytes())


def test_what_it_states(small: RunFolder) -> None:
    """The hashes are those of the files, computed here without Lethe."""
    found = certified(small)
    statement = found.statement
    assert found.is_signed
    assert found.public_key == open_key(small)
    assert (statement["run"], statement["request"]) == ("small", CLIENT_2.to_json())
    assert (statement["after"], statement["forgotten"], statement["purged"]) == (None, [], None)
    assert statement["method"]["name"] == "subtract"
    assert statement["settings"] == {**SUBTRACT.model_dump(by_alias=True), "subtract": {"form": "lazy"}}
    files = {
        "config": "config.toml",
        "model before": "model.safetensors",
        "model after": "forget/client-2-subtract/model.safetensors",
    }
    assert statement["files"] == {
        name: hashlib.sha256((small.path / file).read_bytes()).hexdigest() for name, file in files.items()
    }
    log = UpdateLog.open(small.log_path)
    facts = {"retention": "full", "rounds": 3, "encrypted": False}
    assert statement["log"] == {"sha256": log.sha256(), **facts}
    assert statement["audit"] is None
    assert any("nothing was audited" in limit for limit in statement["limits"])
    assert {"lethe", "python", "torch"} <= statement["software"].keys()


def open_key(folder: RunFolder) -> bytes:
    path = open_session(folder).config.run.certificate_key_path
    return signing_key(path).public_key().public_bytes_raw()


def test_an_audit_is_certified_with_its_notes(small: RunFolder) -> None:
    audit(small, CLIENT_2, ["subtract"], AuditSettings())
    statement = certified(small).statement
    measured = read_json(small.path / "forget" / "client-2-subtract" / "audit.json")
    assert statement["audit"] == measured
    assert set(measured["notes"]) <= set(statement["limits"])
    assert not any("nothing was audited" in limit for limit in statement["limits"])


def test_forgetting_again_drops_the_audit_of_another_model(small: RunFolder) -> None:
    audit(small, CLIENT_2, ["subtract"], AuditSettings())
    forget(small, CLIENT_2, SUBTRACT.with_own("subtract", form="renormalised"))
    assert certified(small).statement["audit"] is None


def test_a_sequence_names_what_was_forgotten_before(small: RunFolder) -> None:
    name = forget(small, ForgetRequest(clients=("1",)), SUBTRACT, after="client-2-subtract")
    statement = certified(small, name).statement
    assert statement["after"] == "client-2-subtract"
    assert statement["forgotten"] == [CLIENT_2.to_json()]
    first = small.path / "forget" / "client-2-subtract" / "model.safetensors"
    assert statement["files"]["model before"] == hashlib.sha256(first.read_bytes()).hexdigest()


def test_what_went_wrong_is_certified_first_among_the_limits(small: RunFolder) -> None:
    """With all notes; an answer that was written without warnings had none."""
    assert (certified(small).statement["warnings"], certified(small).statement["notes"]) == ([], [])
    path = small.path / "forget" / "client-2-subtract" / "result.json"
    spoilt = {
        "warnings": ["client 2, of the request, failed"],
        "notes": ["client 1 failed in 1 of 2 visits: late"],
    }
    write_json(path, {**read_json(path), **spoilt})
    certify(small, "client-2-subtract", signing_key(small.path / "key.pem"))
    statement = certified(small).statement
    assert {key: statement[key] for key in spoilt} == spoilt
    assert statement["limits"][0] == "client 2, of the request, failed"


def test_nothing_is_certified_without_the_files(small: RunFolder) -> None:
    (small.path / "forget" / "client-2-subtract" / "model.safetensors").unlink()
    with pytest.raises(RunCorrupt, match=r"client-2-subtract/model\.safetensors: missing"):
        certify(small, "client-2-subtract", signing_key(small.path / "key.pem"))


def test_nothing_is_certified_of_a_method_that_is_none(small: RunFolder) -> None:
    path = small.path / "forget" / "client-2-subtract" / "result.json"
    write_json(path, {**read_json(path), "method": "magic"})
    with pytest.raises(RunCorrupt, match=r"result\.json: damaged at 'method'"):
        certify(small, "client-2-subtract", signing_key(small.path / "key.pem"))


def test_no_key_is_made_for_what_is_refused(small: RunFolder, tmp_path: Path) -> None:
    path = small.path / "config.toml"
    old = open_session(small).config.run.certificate_key_path
    path.write_text(path.read_text().replace(str(old), str(tmp_path / "keys" / "own.pem")))
    for request, method in ((ForgetRequest(clients=("9",)), "subtract"), (CLIENT_2, "redistill")):
        with pytest.raises(BadInput):
            forget(small, request, ForgetSettings(method=method))
    assert not (tmp_path / "keys").exists()


def test_how_far_was_gone_and_who_said_so_is_a_limit(small: RunFolder) -> None:
    """Where held-out data decided, the certificate says where the forgotten data stand."""
    name = forget(
        small, CLIENT_2, ForgetSettings.of("ascent", max_steps=1, step_share=1e-4, recovery_rounds=0)
    )
    (limit,) = [each for each in certified(small, name).statement["limits"] if "how far to go" in each]
    assert "public data, which were not trained on (mean loss " in limit
    assert "mislabelled or rare ones, are forgotten too little" in limit
    assert not [each for each in certified(small).statement["limits"] if "how far to go" in each]


def test_what_noise_certifies_and_what_not_is_stated(small: RunFolder) -> None:
    """A result that says that noise hides something; the rest of it is that of a subtraction."""
    path = small.path / "forget" / "client-2-subtract" / "result.json"
    result = read_json(path)
    noise = {"epsilon": 2.0, "delta": 0.001, "noise": 0.25, "sensitivity": 0.125, "allowed": 0.2}
    rounds = {"kept-round": 4, "run-rounds": 9, "rounds": 5, "smoothness": 3.0, "clients": ["1", "2"]}
    assert "certified" not in certified(small).statement
    write_json(path, {**result, "details": {**result["details"], "certified": {**noise, **rounds}}})
    certify(small, "client-2-subtract", signing_key(small.path / "key.pem"))
    statement = certified(small).statement
    assert statement["certified"] == {**noise, **rounds}
    (compared,) = [each for each in statement["limits"] if each.startswith("ε = 2 and δ = 0.001 compare")]
    assert "a training without client 1, 2, from the same initial model" in compared
    assert "up to round 4, which then got noise of the same 0.25 on each weight and 5 more rounds" in compared
    assert "nothing is said of the models and updates of the run, which are kept" in compared
    assert any("(0.125) follow from its updates" in each for each in statement["limits"])
    assert any("no differential privacy" in each for each in statement["limits"])


def test_without_noise_no_epsilon_is_stated() -> None:
    nothing = {
        "sensitivity": 0.0,
        "kept-round": 2,
        "rounds": 3,
        "clients": ["5"],
        "epsilon": 0.0,
        "delta": 0.0,
    }
    limits = certificate.limits_of_noise({**nothing, "noise": 0.0})
    assert limits[0].startswith("no noise was added: up to round 2 the run was a training without client 5")


def test_a_result_that_is_replaced_is_said_and_certified(small: RunFolder) -> None:
    """The same request by the same method with other settings: one stays, without the audit of the other."""
    forget(small, CLIENT_2, SUBTRACT)
    assert not [note for note in certified(small).statement["notes"] if "replaces" in note]
    audit(small, CLIENT_2, ["subtract"], AuditSettings(seeds=0))
    assert (small.path / "forget" / "client-2-subtract" / "audit.json").exists()
    forget(small, CLIENT_2, ForgetSettings.of("subtract", form="renormalised"))
    assert not (small.path / "forget" / "client-2-subtract" / "audit.json").exists()
    (note,) = [note for note in certified(small).statement["notes"] if "replaces" in note]
    assert note == (
        "this replaces an earlier client-2-subtract, which had given another model: that model and its audit "
        "are gone"
    )


@pytest.mark.parametrize(
    ("keys", "title"), [({}, "ascent client-3, at most"), ({"epochs": 2}, "ascent client-3")]
)
def test_a_cap_is_called_at_most(keys: dict[str, int], title: str) -> None:
    settings = ForgetSettings.of("ascent", **keys)
    assert title_of("ascent", ForgetRequest(clients=("3",)), settings) == title

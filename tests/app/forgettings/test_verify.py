"""app/forgettings/verify.py: whatever is changed after signing is found, and named."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.forgettings.certify import certify
from app.forgettings.names import AUDIT, CERTIFICATE
from app.forgettings.signing_key import public_key_path, read_public_key, signing_key
from app.forgettings.verify import Verification, verify
from app.workflows import forget
from app.workflows.session import open_session
from strategies.core.errors import BadInput
from strategies.runs.files import read_json, write_json
from strategies.runs.folder import RunFolder
from tests.app.conftest import CLIENT_2, SUBTRACT
from unlearning import certificate
from unlearning.request import ForgetRequest

ANSWER = "forget/client-2-subtract"


def found(folder: RunFolder) -> Verification:
    return verify(folder.path / ANSWER)


def status_of(verification: Verification, name: str) -> str:
    return next(check.status for check in verification.checks if check.name == name)


def test_an_untouched_run_is_verified(small: RunFolder) -> None:
    """The folder's place and name are no part of it."""
    assert [(check.name, check.status) for check in found(small).checks] == [
        ("signature", "ok"),
        ("signer", "ok"),
        ("config", "ok"),
        ("model before", "ok"),
        ("model after", "ok"),
        ("audit", "not made"),
        ("update log", "ok"),
    ]
    assert found(small).failed == ()


def audited(folder: RunFolder) -> Path:
    """Give the answer an audit, certified; return its file."""
    path = folder.path / ANSWER / AUDIT
    measured = {"test_accuracy": 97.1}
    models = dict.fromkeys(("before", "after", "retrain"), measured)
    write_json(path, {**models, "gaps": {}, "disparity": 1.25, "notes": []})
    certify(folder, "client-2-subtract", signing_key(key_path(folder)))
    return path


def test_an_audit_is_part_of_what_is_verified(small: RunFolder) -> None:
    audited(small)
    assert status_of(found(small), "audit") == "ok"
    assert found(small).failed == ()


@pytest.mark.parametrize("change", ["a better figure", "gone", "not JSON"])
def test_an_audit_that_was_changed_is_noticed(small: RunFolder, change: str) -> None:
    path = audited(small)
    if change == "gone":
        path.unlink()
    elif change == "not JSON":
        path.write_text("{")
    else:
        write_json(path, {**read_json(path), "disparity": 0.25})
    assert found(small).failed == ("audit",)


def test_an_audit_that_was_not_certified_is_noticed(small: RunFolder) -> None:
    path = small.path / ANSWER / AUDIT
    write_json(path, {"disparity": 0.0})
    assert found(small).failed == ("audit",)


# everything that a certificate is about


def flipped(file: str) -> Callable[[RunFolder], None]:
    def change(folder: RunFolder) -> None:
        content = bytearray((folder.path / file).read_bytes())
        content[-1] ^= 1
        (folder.path / file).write_bytes(content)

    return change


def removed(file: str) -> Callable[[RunFolder], None]:
    return lambda folder: (folder.path / file).unlink()


def weighed_anew(folder: RunFolder) -> None:
    """Change the index without damage that SQLite would notice."""
    with sqlite3.connect(folder.log_path / "index.sqlite") as connection:
        connection.execute("UPDATE entries SET weight = 0.5 WHERE round = 1 AND client_id = '2'")
    connection.close()


def without_its_log(folder: RunFolder) -> None:
    shutil.rmtree(folder.log_path)


def by_another_key(folder: RunFolder) -> None:
    """Replace the certificate by one of the same files that somebody else signed."""
    certify(folder, "client-2-subtract", Ed25519PrivateKey.generate())


def retold(folder: RunFolder) -> None:
    path = folder.path / ANSWER / CERTIFICATE
    path.write_bytes(path.read_bytes().replace(b'"method":{', b'"method":{ '))


CHANGES = {
    "a bit of the model before": (flipped("model.safetensors"), "model before"),
    "a bit of the model after": (flipped(f"{ANSWER}/model.safetensors"), "model after"),
    "the model after is gone": (removed(f"{ANSWER}/model.safetensors"), "model after"),
    "a bit of an update": (flipped("log/00002/0.safetensors"), "update log"),
    "an update is gone": (removed("log/00002/0.safetensors"), "update log"),
    "a weight in the index": (weighed_anew, "update log"),
    "the log is gone": (without_its_log, "update log"),
    "a bit of the config": (flipped("config.toml"), "config"),
    "a space in the certificate": (retold, "signature"),
    "another signer": (by_another_key, "signer"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_named(small: RunFolder, change: str) -> None:
    apply, name = CHANGES[change]
    apply(small)
    verification = found(small)
    assert verification.failed == (name,)
    assert all("\n" not in check.detail for check in verification.checks)


def test_a_forged_log_needs_more_than_new_hashes(small: RunFolder) -> None:
    """A round that is left out leaves a log that is sound in itself."""
    with sqlite3.connect(small.log_path / "index.sqlite") as connection:
        connection.execute("DELETE FROM entries WHERE round = 3")
        connection.execute("DELETE FROM rounds WHERE round = 3")
    connection.close()
    verification = found(small)
    assert verification.failed == ("update log",)


# signers


def test_the_signer_that_was_expected(small: RunFolder, tmp_path: Path) -> None:
    own = read_public_key(public_key_path(key_path(small)))
    assert status_of(verify(small.path / ANSWER, own), "signer") == "ok"
    other = signing_key(tmp_path / "other.pem").public_key()
    assert verify(small.path / ANSWER, other).failed == ("signer",)


def key_path(folder: RunFolder) -> Path:
    return open_session(folder).config.run.certificate_key_path


def test_a_certificate_by_itself_is_checked_as_far_as_it_goes(small: RunFolder, tmp_path: Path) -> None:
    """Sent to somebody who has neither the run nor the key."""
    sent = Path(shutil.copy(small.path / ANSWER / CERTIFICATE, tmp_path / "sent.json"))
    verification = verify(sent)
    assert verification.failed == ()
    assert {check.status for check in verification.checks} == {"ok", "not made"}
    assert status_of(verification, "signer") == "not made"
    assert verify(sent, folder=small).checks == found(small).checks


# what comes after


def test_a_second_forgetting_leaves_the_first_certificate_valid(small: RunFolder) -> None:
    second = forget(small, ForgetRequest(clients=("1",)), SUBTRACT, after="client-2-subtract")
    assert found(small).failed == ()
    assert verify(small.path / "forget" / second).failed == ()


def test_the_second_no_longer_holds_when_the_first_is_made_anew_in_another_way(small: RunFolder) -> None:
    """The model that it started from is another then."""
    second = forget(small, ForgetRequest(clients=("1",)), SUBTRACT, after="client-2-subtract")
    flipped(f"{ANSWER}/model.safetensors")(small)
    assert verify(small.path / "forget" / second).failed == ("model before",)


# errors


STATED = {"files": {}, "log": None, "request": CLIENT_2.to_json(), "method": {"name": "x"}, "after": None}


def sign(folder: RunFolder, statement: dict[str, object]) -> None:
    """Replace the certificate by one that Lethe would not make, signed by the right key."""
    path = folder.path / ANSWER / CERTIFICATE
    path.write_bytes(certificate.make(statement, signing_key(key_path(folder))))


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ({}, "no certificate of forgetting"),
        ({"files": {}, "log": None}, "no certificate of forgetting"),
        ({**STATED, "log": 3}, "no certificate of forgetting"),
        ({**STATED, "after": "../up"}, r"\.\./up"),
    ],
)
def test_a_signed_statement_about_something_else_is_refused(
    small: RunFolder, statement: dict[str, object], message: str
) -> None:
    sign(small, statement)
    with pytest.raises(BadInput, match=message):
        found(small)


def test_no_request_leads_out_of_the_folder(small: RunFolder) -> None:
    sign(small, {**STATED, "request": {"clients": ["../.."]}})
    assert found(small).failed == ("config", "model before", "model after")


def test_what_is_no_certificate_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"certificate": {"format": "x"}}))
    with pytest.raises(BadInput, match=r"other\.json: this is no certificate"):
        verify(path)
    with pytest.raises(BadInput, match=r"certificate\.json: cannot be read"):
        verify(tmp_path)

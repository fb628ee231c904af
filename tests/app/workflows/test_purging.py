"""app/workflows/purging.py: nothing of the client's updates is left, and a certificate says so."""

from pathlib import Path

import pytest
import torch

from app.config.run_config import RunConfig
from app.forgettings.certify import certify
from app.forgettings.folder import runs_in
from app.forgettings.names import AUDIT, CERTIFICATE
from app.forgettings.signing_key import signing_key
from app.forgettings.verify import verify
from app.forgettings.verify_run import verify_run
from app.workflows import audit, check_purge, forget, purge, purging, train
from app.workflows.session import open_session
from app.workflows.trained import open_trained_run
from strategies.core.errors import BadInput
from strategies.log.update_log import UpdateLog
from strategies.runs.files import read_json
from strategies.runs.folder import RunFolder
from tests.app.conftest import CLIENT_2, SMALL, SUBTRACT
from unlearning import certificate
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

NAME = "client-2-subtract"
CLIENT_1 = ForgetRequest(clients=("1",))


def traces(folder: RunFolder, client_id: str) -> set[bytes]:
    """Return pieces of a client's updates, and the hashes of their files, as they stand on the disk."""
    found = set[bytes]()
    for run in runs_in(folder):
        log = UpdateLog.open(run.log_path)
        for entry in log.entries(client_id=client_id):
            content = log.delta(entry.round, client_id).numpy().tobytes()
            found |= {content[i : i + 32] for i in range(0, len(content) - 32, 400)}
            found.add(str(entry.sha256).encode())
    return {piece for piece in found if len(set(piece)) > 8}  # Zeros are everywhere


def found_in(folder: Path, pieces: set[bytes]) -> set[str]:
    """Return the files that hold one of the pieces."""
    contents = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {path.name for path, content in contents.items() if any(piece in content for piece in pieces)}


def statement_of(folder: RunFolder, name: str = NAME) -> dict[str, object]:
    return dict(certificate.read((folder.path / "forget" / name / CERTIFICATE).read_bytes()).statement)


def test_nothing_of_the_client_is_left_in_the_runs_folder(small: RunFolder) -> None:
    """In no file at all, SQLite's included; what the others sent stays."""
    gone, kept = traces(small, "2"), traces(small, "1")
    assert {"index.sqlite", "2.safetensors"} <= found_in(small.path, gone)
    (log,) = purge(small, NAME)
    assert (log["log"], log["clients"]) == ("log", ["2"])
    assert found_in(small.path, gone) == set()
    assert not (small.path / "checkpoint.safetensors").exists()
    assert found_in(small.path, kept) == {"1.safetensors", "index.sqlite"}
    assert UpdateLog.open(small.log_path).verify() == {}
    assert small.read_summary()["clients"]["2"] == {}
    assert small.read_summary()["clients"]["1"]["num-examples"] > 0


def test_the_new_certificate_records_it_and_both_verify(small: RunFolder) -> None:
    """One that was made before the purge still holds: what came after is certified."""
    other = forget(small, CLIENT_2, ForgetSettings(method="fast-fedul"))
    before = UpdateLog.open(small.log_path).sha256()
    purge(small, NAME)
    after = UpdateLog.open(small.log_path).sha256()
    (log,) = statement_of(small)["purged"]["logs"]  # type: ignore[index]
    assert (log["sha256-before"], log["sha256-after"]) == (before, after)
    assert statement_of(small, other)["purged"] is None
    for name in (NAME, other):
        assert verify(small.path / "forget" / name).failed == ()
    checks = {check.name: check.detail for check in verify(small.path / "forget" / other).checks}
    assert checks["update log"] == "client 2 was purged from it since, as certified"


def test_without_the_certificate_of_the_purge_the_older_one_fails(small: RunFolder) -> None:
    other = forget(small, CLIENT_2, ForgetSettings(method="fast-fedul"))
    purge(small, NAME)
    (small.path / "forget" / NAME / CERTIFICATE).unlink()
    assert verify(small.path / "forget" / other).failed == ("update log",)


def test_two_purges_one_after_another_are_followed(small: RunFolder) -> None:
    """The first certificate knows the log before both."""
    second = forget(small, CLIENT_1, SUBTRACT)
    third = forget(small, CLIENT_1, ForgetSettings(method="fast-fedul"))
    purge(small, NAME)
    purge(small, second)
    for name in (NAME, second, third):
        assert verify(small.path / "forget" / name).failed == ()
    checks = {check.name: check.detail for check in verify(small.path / "forget" / third).checks}
    assert checks["update log"] == "client 2, 1 was purged from it since, as certified"


def test_forgetting_can_still_be_audited_and_the_others_forgotten(small: RunFolder) -> None:
    purge(small, NAME)
    audit(small, CLIENT_2, ["subtract"], AuditSettings())
    assert verify(small.path / "forget" / NAME).failed == ()
    assert statement_of(small)["purged"] is not None
    assert statement_of(small)["audit"] is not None
    second = forget(small, CLIENT_1, SUBTRACT, after=NAME)
    assert verify(small.path / "forget" / second).failed == ()


def test_the_model_is_the_one_before_the_purge(small: RunFolder) -> None:
    path = small.path / "forget" / NAME / "model.safetensors"
    before = path.read_bytes()
    purge(small, NAME)
    assert path.read_bytes() == before


def test_logs_of_runs_in_the_run_are_purged_too(small: RunFolder) -> None:
    """A pruned run has a log of its own, with the same client in it."""
    pruned = ForgetSettings(method="subtract", prune="omp", sparsity=0.5)
    forget(small, CLIENT_2, pruned)
    gone = traces(small, "2")
    logs = purge(small, NAME)
    assert sorted(log["log"] for log in logs) == ["log", "pruned/omp-0.5/log"]
    assert found_in(small.path, gone) == set()
    assert verify(small.path / "pruned" / "omp-0.5" / "forget" / NAME).failed == ()


def test_what_was_forgotten_and_audited_is_only_purged(small: RunFolder) -> None:
    """First ``--audit``, then ``--purge``: the audit stays, in its file and in the certificate."""
    audit(small, CLIENT_2, ["subtract"], AuditSettings(seeds=0))
    measured = read_json(small.path / "forget" / NAME / AUDIT)
    assert check_purge(small, CLIENT_2, SUBTRACT) == NAME
    purge(small, NAME)
    assert read_json(small.path / "forget" / NAME / AUDIT) == statement_of(small)["audit"] == measured
    assert verify(small.path / "forget" / NAME).failed == ()
    assert statement_of(small)["purged"] is not None


@pytest.mark.parametrize(
    "other", [{"method": "fast-fedul"}, {"method": "subtract", "subtract.form": "renormalised"}]
)
def test_what_was_forgotten_in_another_way_is_forgotten_first(
    small: RunFolder, other: dict[str, str]
) -> None:
    settings = ForgetSettings.model_validate(other)
    assert check_purge(small, CLIENT_2, settings) is None
    assert check_purge(small, CLIENT_1, SUBTRACT) is None


def test_an_audit_stays_as_long_as_the_model_is_the_same(small: RunFolder) -> None:
    """To give the same command again takes nothing away; another model is not the one that was audited."""
    audit(small, CLIENT_2, ["subtract"], AuditSettings(seeds=0))
    measured = small.path / "forget" / NAME / AUDIT
    forget(small, CLIENT_2, SUBTRACT)
    assert statement_of(small)["audit"] == read_json(measured)
    forget(small, CLIENT_2, ForgetSettings.of("subtract", form="renormalised"))
    assert not measured.exists()
    assert statement_of(small)["audit"] is None


# interrupted


def test_an_interrupted_purge_is_completed_without_forgetting_again(
    small: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The updates are gone, so the forgetting could not even be repeated."""
    gone = traces(small, "2")
    monkeypatch.setattr(purging, "certify", _killed)
    with pytest.raises(KeyboardInterrupt):
        purge(small, NAME)
    monkeypatch.undo()
    assert statement_of(small)["purged"] is None
    assert check_purge(small, CLIENT_2, SUBTRACT) == NAME
    purge(small, NAME)
    assert found_in(small.path, gone) == set()
    assert statement_of(small)["purged"] is not None
    with pytest.raises(BadInput, match="client 2 is purged already"):
        check_purge(small, CLIENT_2, SUBTRACT)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


# refused before any work


def test_what_cannot_be_purged_is_refused(small: RunFolder) -> None:
    with pytest.raises(BadInput, match="cannot purge class-7: the log holds a client's updates as a whole"):
        check_purge(small, ForgetRequest(classes=(7,)), ForgetSettings(method="finetune"))
    (small.path / "model.safetensors").rename(small.path / "elsewhere")
    with pytest.raises(BadInput, match="is not finished; resume it, or delete that folder"):
        check_purge(small, CLIENT_2, SUBTRACT)


def test_a_run_without_a_log_has_nothing_to_purge(small: RunFolder) -> None:
    small.log_path.rename(small.path.parent / "elsewhere")
    with pytest.raises(BadInput, match=r"run 'small' kept no update log \(log\.enabled=false\)"):
        check_purge(small, CLIENT_2, SUBTRACT)


def test_methods_say_what_a_purge_took_from_them(small: RunFolder) -> None:
    purge(small, NAME)
    with pytest.raises(BadInput, match=r"client 2 was forgotten and purged .* retrain needs none"):
        forget(small, CLIENT_2, SUBTRACT)
    with pytest.raises(BadInput, match="fast-fedul needs the others' updates, but those of client 2"):
        forget(small, CLIENT_1, ForgetSettings(method="fast-fedul"))
    forget(small, CLIENT_1, ForgetSettings(method="fast-fedul"), after=NAME)


# what cannot be hidden, and is said


def test_the_limits_admit_what_a_subtraction_gives_away(small: RunFolder) -> None:
    """Σ_t w_t·ΔM_t of the client is the model before minus the model after."""
    run = open_trained_run(small, open_session(small))
    assert run.log is not None
    expected = run.log.weighted_sum("2")
    purge(small, NAME)
    limits = statement_of(small)["limits"]
    assert isinstance(limits, list)
    assert any("follows from the models before and after" in limit for limit in limits)
    answered = RunFolder(small.path / "forget" / NAME).read_model()
    difference = run.final - run.layout.flatten(answered)
    assert torch.allclose(difference, expected, atol=1e-6)
    assert read_json(small.path / "forget" / NAME / "result.json")["method"] == "subtract"


def test_a_certificate_made_later_still_says_so(small: RunFolder) -> None:
    """Whatever makes it anew, such as an audit, reads the purge from the log."""
    purge(small, NAME)
    certify(small, NAME, signing_key(small.path.parent / "other.pem"))
    assert statement_of(small)["purged"] is not None


def test_an_encrypted_log_is_purged_by_destroying_its_key(tmp_path: Path) -> None:
    small = [f"run.home={tmp_path}", *SMALL, "run.rounds=1", "log.encrypted=true"]
    keys = [f"log.keys={tmp_path / 'keys'}", f"run.certificate-key={tmp_path / 'certificate.pem'}"]
    folder = train(RunConfig().with_overrides([*small, *keys]))
    forget(folder, CLIENT_2, SUBTRACT)
    assert len(list(tmp_path.glob("keys/*/2.key"))) == 1
    (log,) = purge(folder, NAME)
    assert log["keys-destroyed"]
    assert sorted(path.name for path in tmp_path.glob("keys/*/*")) == ["0.key", "1.key"]
    assert "their keys destroyed" in str(statement_of(folder)["limits"])
    assert [check.name for check in verify_run(folder) if check.status != "ok"] == []

"""Checking a certificate of forgetting: its signature, its signer, and the files that it is about."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.config.run_config import RunConfig
from app.forgettings.certify import files_of
from app.forgettings.folder import StoredForgetting, forgetting_name, outermost, sha256_of
from app.forgettings.names import AUDIT, CERTIFICATE
from app.forgettings.signing_key import public_key_path, read_public_key
from strategies.core.errors import BadInput, RunCorrupt
from strategies.log.update_log import UpdateLog
from strategies.runs.files import read_json
from strategies.runs.folder import CONFIG, RunFolder
from strategies.runs.home import MARKER, place
from unlearning import certificate
from unlearning.certificate import Certificate
from unlearning.request import ForgetRequest

Status = Literal["ok", "failed", "not made"]


@dataclass(frozen=True)
class Check:
    """One check of a certificate: its name, its outcome, and a detail."""

    name: str
    status: Status
    detail: str = ""


@dataclass(frozen=True)
class Verification:
    """A certificate as it was read, and all its checks, including those that could not be made."""

    certificate: Certificate
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the checks that failed."""
        return tuple(check.name for check in self.checks if check.status == "failed")


def verify(
    path: Path, signer: Ed25519PublicKey | None = None, folder: RunFolder | None = None
) -> Verification:
    """Check a certificate, given by its file or folder: its signature, its signer, and the run's files.

    `signer` is the expected signer's public key; None: the key that the run's config names, if its public
    half is on this machine and the certificate lies in a run's folder; otherwise the signer is not checked.
    `folder` is the run; None: the run in whose folder the certificate lies, if any.

    Raises
    ------
    BadInput
        If this is no certificate, or of another version.
    """
    path = path / CERTIFICATE if path.is_dir() else path
    try:
        found = certificate.read(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    if not found.is_signed:
        broken = Check("signature", "failed", "the certificate is not, byte for byte, what was signed")
        others = Check("signer and files", "not made", "what it states was not signed")
        return Verification(found, (broken, others))
    folder = folder or _around(path)
    checks = [Check("signature", "ok", f"Ed25519, {found.fingerprint}"), _signer(found, signer, folder)]
    return Verification(found, (*checks, *_of_files(found, folder)))


def _signer(found: Certificate, signer: Ed25519PublicKey | None, folder: RunFolder | None) -> Check:
    if signer is not None:
        expected, whose = signer.public_bytes_raw(), "the key that was given"
    elif folder is not None and (own := _own_public_key(folder)) is not None:
        expected, whose = read_public_key(own).public_bytes_raw(), f"the run's own key, {own}"
    else:
        return Check("signer", "not made", "compare the fingerprint, or give the signer's public key")
    if expected == found.public_key:
        return Check("signer", "ok", whose)
    return Check("signer", "failed", f"expected {whose}: {certificate.fingerprint(expected)}")


def _own_public_key(folder: RunFolder) -> Path | None:
    """Return the public half of the key that signs a run's certificates, if it is on this machine."""
    try:
        path = public_key_path(RunConfig.from_toml(folder.path / CONFIG).run.certificate_key_path)
    except BadInput:
        return None  # The check of the config's hash says what is wrong with it
    return path if path.exists() else None


def _around(path: Path) -> RunFolder | None:
    """Return the run in whose folder a certificate lies; None if it lies elsewhere."""
    parents = path.absolute().parents
    inside = len(parents) > 2 and parents[1].name == "forget" and (parents[2] / MARKER).exists()
    return RunFolder(parents[2]) if inside else None


def _of_files(found: Certificate, folder: RunFolder | None) -> Iterator[Check]:
    try:
        files: Mapping[str, str] = dict(found.statement["files"])
        forgetting = _stated_forgetting(found.statement, folder) if folder is not None else None
        logged = found.statement["log"] and str(found.statement["log"]["sha256"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadInput("this is no certificate of forgetting: what it must state is missing") from None
    if folder is None or forgetting is None:
        yield from (
            Check(name, "not made", "the run's folder is not there")
            for name in (*files, "audit", "update log")
        )
        return
    for name, file in files_of(folder, forgetting).items():
        yield _of_file(folder.path / file, name, files.get(name))
    yield _of_audit(forgetting.path, found.statement.get("audit"))
    yield from _of_log(found, folder, logged)


def _stated_forgetting(statement: Mapping[str, Any], folder: RunFolder) -> StoredForgetting:
    """Return the forgetting that a certificate is about, with what is needed to find its files."""
    request, method = ForgetRequest.from_json(statement["request"]), str(statement["method"]["name"])
    forgettings, after = folder.path / "forget", str(statement["after"] or "")
    if after:
        place(forgettings, after)
    return StoredForgetting(
        place(forgettings, forgetting_name(request, method, after)), request, method, after, (), {}
    )


def _of_file(path: Path, name: str, expected: str | None) -> Check:
    try:
        actual = sha256_of(path)
    except RunCorrupt as error:
        return Check(name, "failed", str(error))
    return Check(name, "ok") if actual == expected else Check(name, "failed", f"{path} is another file now")


def _of_audit(path: Path, expected: object) -> Check:
    """Compare ``audit.json`` with the audit that a certificate states."""
    audit, missing = path / AUDIT, "nothing was audited"
    if not audit.exists():
        return (
            Check("audit", "not made", missing)
            if expected is None
            else Check("audit", "failed", f"{audit} is missing")
        )
    try:
        actual: object = read_json(audit)
    except RunCorrupt as error:
        return Check("audit", "failed", str(error))
    if actual == expected:
        return Check("audit", "ok")
    changed = "is not what was certified" if expected is not None else "is there, but none was certified"
    return Check("audit", "failed", f"{audit} {changed}")


def _of_log(found: Certificate, folder: RunFolder, expected: str | None) -> Iterator[Check]:
    if expected is None:
        yield Check("update log", "not made", "the run kept none")
        return
    try:
        log = UpdateLog.open(folder.log_path)
        actual, damage = log.sha256(), log.verify()
    except (BadInput, RunCorrupt) as error:
        yield Check("update log", "failed", str(error))
        return
    if damage:
        yield Check("update log", "failed", f"damaged: {', '.join(damage)}")
    elif actual == expected:
        yield Check("update log", "ok")
    elif clients := _purged_between(expected, actual, _purges(folder, found.public_key)):
        yield Check("update log", "ok", f"client {', '.join(clients)} was purged from it since, as certified")
    else:
        yield Check("update log", "failed", f"{folder.log_path} says something else now")


def _purges(folder: RunFolder, public_key: bytes) -> dict[str, tuple[str, list[str]]]:
    """Return the purges stated by certificates in the run's folder: hash before -> hash after, clients."""
    found = {}
    for path in sorted(outermost(folder).path.rglob(CERTIFICATE)):
        with suppress(BadInput, OSError, KeyError, TypeError):
            each = certificate.read(path.read_bytes())
            if each.public_key == public_key and each.is_signed:
                for log in (each.statement["purged"] or {}).get("logs", ()):
                    found[str(log["sha256-before"])] = (str(log["sha256-after"]), list(log["clients"]))
    return found


def _purged_between(start: str, end: str, purges: Mapping[str, tuple[str, list[str]]]) -> list[str]:
    """Return the clients whose purges lead from one hash of a log to another; empty if they do not."""
    clients: list[str] = []
    for _ in range(len(purges)):
        if start not in purges:
            break
        start, gone = purges[start]
        clients += gone
        if start == end:
            return clients
    return []

"""Checks a whole run: its files, the hash chain of its update log, and its certificates."""

from collections.abc import Callable, Iterator
from pathlib import Path

from app.forgettings.folder import runs_in
from app.forgettings.lineage import check_origin
from app.forgettings.names import CERTIFICATE
from app.forgettings.origin import read_origin
from app.forgettings.verify import Check, Status, verify
from strategies.core.errors import BadInput, LetheError, RunCorrupt
from strategies.log.update_log import UpdateLog
from strategies.runs.folder import CONFIG, MODEL, SUMMARY, RunFolder


def verify_run(folder: RunFolder, head: str = "") -> list[Check]:
    """Check every file of a run whose content is known: config, models, update logs, certificates.

    `head` is the SHA-256 of its update log as noted elsewhere: only that distinguishes a forged log from the
    original; if empty, the log is compared with the run's own summary only.
    """
    checks = [check for run in runs_in(folder) for check in _of_run(run, folder)]
    if read_origin(folder) is not None:
        checks.append(_of_origin(folder))
    if head:
        checks.append(_of_head(folder, head))
    certificates = sorted(folder.path.rglob(CERTIFICATE))
    return [*checks, *(_of_certificate(path, folder) for path in certificates)]


def _of_run(run: RunFolder, top: RunFolder) -> Iterator[Check]:
    inside = run.path.relative_to(top.path).as_posix()
    place = "" if inside == "." else f"{inside}/"
    yield _attempt(place + CONFIG, lambda: RunFolder.open(run.path))
    if run.has_initial:
        yield _attempt(f"{place}initial model", run.check_initial)
    if (run.path / MODEL).exists():
        yield _attempt(f"{place}model", run.check_model)
    else:
        yield Check(f"{place}model", "not made", "the run is not finished")
    if run.log_path.is_dir():
        yield from _of_log(run, place)
    else:
        yield Check(f"{place}update log", "not made", "the run kept none")


def _of_log(run: RunFolder, place: str) -> Iterator[Check]:
    name = f"{place}update log"
    try:
        log = UpdateLog.open(run.log_path)
        damage = log.verify()
        said, head = _said_of(log), "" if damage else log.sha256()
    except (BadInput, RunCorrupt) as error:
        yield Check(name, "failed", str(error))
        return
    if damage:
        yield Check(name, "failed", "; ".join(f"{file}: {what}" for file, what in damage.items()))
        return
    yield Check(name, "ok", said)
    yield _against_summary(run, f"{place}log and summary", head)


def _said_of(log: UpdateLog) -> str:
    parts = [f"{len(log.rounds())} rounds, SHA-256 {log.sha256()}"]
    if log.is_encrypted:
        parts.append("encrypted")
    if absent := log.unreadable():
        parts.append(f"only its bytes are checked for client {', '.join(absent)}, whose keys are not here")
    return ", ".join(parts)


def _against_summary(run: RunFolder, name: str, head: str) -> Check:
    """Compare the log with the summary's hash of it; a chain alone does not show that it is the same."""
    if not (run.path / SUMMARY).exists():
        return Check(name, "not made", "the run is not finished")
    try:
        noted = run.read_summary().get("log")
    except RunCorrupt as error:
        return Check(name, "failed", str(error))
    if not isinstance(noted, dict) or "sha256" not in noted:
        return Check(name, "not made", "the summary says nothing of the log")
    if noted["sha256"] == head:
        return Check(name, "ok")
    return Check(name, "failed", f"the summary knows a log with SHA-256 {noted.get('sha256')}")


def _of_head(folder: RunFolder, head: str) -> Check:
    name = "log as noted"
    try:
        actual = UpdateLog.open(folder.log_path).sha256()
    except (BadInput, RunCorrupt) as error:
        return Check(name, "failed", str(error))
    if actual == head.strip().lower():
        return Check(name, "ok")
    return Check(name, "failed", f"{folder.log_path} has SHA-256 {actual}")


def _of_origin(folder: RunFolder) -> Check:
    found, said = check_origin(folder)
    statuses: dict[bool | None, Status] = {True: "ok", False: "failed", None: "not made"}
    return Check("origin", statuses[found], said)


def _of_certificate(path: Path, folder: RunFolder) -> Check:
    name = f"certificate {path.parent.relative_to(folder.path).as_posix()}"
    try:
        failed = verify(path).failed
    except LetheError as error:
        return Check(name, "failed", str(error))
    return Check(name, "failed", f"not verified: {', '.join(failed)}") if failed else Check(name, "ok")


def _attempt(name: str, work: Callable[[], object]) -> Check:
    try:
        work()
    except (BadInput, RunCorrupt) as error:
        return Check(name, "failed", str(error))
    return Check(name, "ok")

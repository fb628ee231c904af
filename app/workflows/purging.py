"""Purges the clients of a served request from a run's update logs, and certifies it.

Logs are purged in the run itself and in all runs that lie in it: pruned ones, and those with other seeds.
Other traces of the client are erased as well (`app.workflows.traces`). Every step can be repeated, so the
same command completes an interrupted purge.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.config.run_config import RunConfig
from app.forgettings.certify import certify, purged_section
from app.forgettings.folder import forgetting_name, has_forgetting, outermost, read_forgetting, runs_in
from app.forgettings.names import CERTIFICATE, RESULT
from app.forgettings.signing_key import signing_key
from app.workflows.observer import Observer, Quiet
from app.workflows.removing import on_run
from app.workflows.traces import erase_exposed, erase_traces, replace_erasing
from strategies.core.errors import BadInput
from strategies.log.update_log import UpdateLog
from strategies.runs.folder import CONFIG, MODEL, RunFolder
from unlearning import certificate
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings


def check_purge(
    folder: RunFolder, request: ForgetRequest, settings: ForgetSettings, after: str = ""
) -> str | None:
    """Check, before any work, that the clients of a request can be purged once it is served.

    Returns
    -------
    str or None
        The name of the forgetting, if this very forgetting was made before: then only `purge` is left to do,
        and its audit stays.

    Raises
    ------
    BadInput
        If the request is for classes or examples, there is no log, a run is not finished, or a client is
        purged already.
    """
    if request.kind != "client":
        raise BadInput(f"cannot purge {request.name}: the log holds a client's updates as a whole")
    name = forgetting_name(request, settings.method, after)
    if _is_interrupted(folder, request, name):
        return name
    runs = runs_in(outermost(folder))
    for run in runs:
        if not (run.path / MODEL).exists():
            raise BadInput(f"cannot purge: {run.path} is not finished; resume it, or delete that folder")
    logs = [UpdateLog.open(run.log_path) for run in runs if run.log_path.is_dir()]
    if not logs:
        raise BadInput(f"cannot purge: run '{folder.name}' kept no update log (log.enabled=false)")
    for client_id in request.clients:
        if all(client_id in log.purged() for log in logs):
            since = logs[0].purged()[client_id]
            raise BadInput(f"client {client_id} is purged already, {since}; nothing of it is left to erase")
    return name if has_forgetting(folder, name, settings) else None


def _is_interrupted(folder: RunFolder, request: ForgetRequest, name: str) -> bool:
    """Say whether a purge after this very forgetting was begun, but is not certified yet."""
    forgettings = folder.path / "forget"
    if not (forgettings / name / RESULT).exists() or not folder.log_path.is_dir():
        return False
    begun = set(request.clients) <= UpdateLog.open(folder.log_path).purged().keys()
    return begun and not any(_certifies(path, request) for path in forgettings.glob(f"*/{CERTIFICATE}"))


def _certifies(path: Path, request: ForgetRequest) -> bool:
    with suppress(BadInput, KeyError):
        statement = certificate.read(path.read_bytes()).statement
        return statement["purged"] is not None and statement["request"] == request.to_json()
    return False


@on_run
def purge(folder: RunFolder, name: str, observer: Observer | None = None) -> list[dict[str, Any]]:
    """Erase the clients of the named forgetting from the logs, and certify it; return the purged logs.

    Raises
    ------
    BadInput
        If there is no such forgetting.
    LetheError
        If a file cannot be overwritten; give the same command again.
    """
    forgetting, observer = read_forgetting(folder, name), observer or Quiet()
    key = signing_key(RunConfig.from_toml(folder.path / CONFIG).run.certificate_key_path)
    clients, runs = forgetting.request.clients, runs_in(outermost(folder))
    observer.phase(f"purge client {', '.join(clients)}", len(runs))
    for run in runs:
        for other in erase_exposed(run, clients):  # First: what is interrupted here is begun anew
            _certify_anew(run, other, key)
    for run in runs:
        if run.log_path.is_dir():
            with UpdateLog.open(run.log_path, write=True) as log:
                log.purge(clients)
        erase_traces(run, clients)
        observer.advance(run.name)
    _certify_anew(folder, name, key)
    logs: list[dict[str, Any]] = (purged_section(folder, forgetting) or {}).get("logs", [])
    return logs


def _certify_anew(run: RunFolder, name: str, key: Ed25519PrivateKey) -> None:
    """Write a certificate whose audit has changed, and overwrite the one that was there."""
    path = run.forget_folder(name) / CERTIFICATE
    if path.exists():
        replace_erasing(path, lambda: certify(run, name, key))
    else:
        certify(run, name, key)

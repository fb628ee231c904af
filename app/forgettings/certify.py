"""Certificates of forgetting, written into a run's folder from the files there."""

import time
from importlib.metadata import version as installed_version
from pathlib import Path
from platform import python_version
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.config.run_config import RunConfig
from app.forgettings.folder import (
    StoredForgetting,
    guarantee_in,
    outermost,
    read_audit,
    read_forgetting,
    runs_in,
    sha256_of,
)
from app.forgettings.lineage import stated as stated_holders
from app.forgettings.names import CERTIFICATE, RESULT
from app.forgettings.origin import read_origin
from app.version import version
from strategies.core.errors import RunCorrupt
from strategies.log.update_log import UpdateLog
from strategies.runs.files import write_chunks
from strategies.runs.folder import CONFIG, MODEL, SCALE, TARGET_SCALE, RunFolder
from unlearning import certificate
from unlearning.registry import names, traits_of
from unlearning.traits.base import CERTIFIED, GROUPS, SEED, STANDING, Traits

_SOFTWARE = ("cryptography", "flwr", "numpy", "torch")


def certify(folder: RunFolder, name: str, key: Ed25519PrivateKey) -> Path:
    """Write the certificate of a forgetting, from the files in its folder; return where it lies.

    Raises
    ------
    BadInput
        If there is no forgetting of that name.
    RunCorrupt
        If one of the files that it is about is missing.
    """
    forgetting = read_forgetting(folder, name)
    path = forgetting.path / CERTIFICATE
    write_chunks(path, [certificate.make(_statement(folder, forgetting), key)])
    return path


def _statement(folder: RunFolder, forgetting: StoredForgetting) -> dict[str, Any]:
    result, audited = forgetting.result, read_audit(forgetting.path)
    purged = purged_section(folder, forgetting)
    method = _method_of(forgetting)
    epsilon = result.get("details", {}).get("epsilon")
    warnings = result.get("warnings", ())
    guarantee = guarantee_in(folder, result)
    limits = [*warnings, *certificate.limits(method.name, guarantee, audited, epsilon)]
    summary, origin = folder.read_summary(), read_origin(folder)
    weights = (summary.get("model") or {}).get("weights")
    limits += certificate.limits_of_weights(weights["sha256"]) if weights else []
    judged = summary.get("judged")
    limits += certificate.limits_of_choice(judged) if judged and judged["round"] < judged["trained"] else []
    standing = result.get("details", {}).get(STANDING)
    limits += certificate.limits_of_held_out(standing) if standing else []
    noised = result.get("details", {}).get(CERTIFIED)
    limits += certificate.limits_of_noise(noised) if noised else []
    limits += certificate.limits_of_sums() if SEED in result.get("details", {}) else []
    if (groups := result.get("details", {}).get(GROUPS)) is not None:
        limits += certificate.limits_of_groups(groups, guarantee == "exact")
    whole = outermost(folder).path
    limits += certificate.limits_of_scale() if (whole / SCALE).exists() else []
    limits += certificate.limits_of_target_scale() if (whole / TARGET_SCALE).exists() else []
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "run": _run_name(folder),
        "request": result["request"],
        "after": forgetting.after or None,
        "forgotten": [request.to_json() for request in forgetting.forgotten],
        "method": {"name": method.name, "guarantee": guarantee, "epsilon": epsilon},
        "settings": result["settings"],
        **({"certified": noised} if noised else {}),
        "warnings": warnings,
        "notes": result["notes"],
        "files": {name: sha256_of(folder.path / file) for name, file in files_of(folder, forgetting).items()},
        **({"initial weights": weights["sha256"]} if weights else {}),
        **({"origin": origin.stated()} if origin is not None else {}),
        **({"descendants": holders} if (holders := stated_holders(folder, forgetting.request)) else {}),
        "log": _log_section(folder),
        "audit": audited,
        "purged": purged,
        "limits": [*limits, *(_limits_of_purge(folder, purged) if purged else ())],
        "software": {
            "lethe": version(),
            "python": python_version(),
            **{package: installed_version(package) for package in _SOFTWARE},
        },
    }


def _method_of(forgetting: StoredForgetting) -> Traits:
    if forgetting.method not in names():
        raise RunCorrupt(
            f"{forgetting.path / RESULT}: damaged at 'method' (no method is called so); restore it from a "
            "copy"
        )
    return traits_of(forgetting.method)


def _limits_of_purge(folder: RunFolder, purged: dict[str, Any]) -> list[str]:
    destroyed = all(log["keys-destroyed"] for log in purged["logs"])
    tracked = bool(RunConfig.from_toml(folder.path / CONFIG).run.track)
    return certificate.limits_of_purge(purged["clients"], keys_destroyed=destroyed, tracked=tracked)


def _run_name(folder: RunFolder) -> str:
    """Return a run's name, after that of the run it lies in."""
    path = folder.path.absolute()
    return path.relative_to(outermost(folder).path.absolute().parent).as_posix()


def files_of(folder: RunFolder, forgetting: StoredForgetting) -> dict[str, str]:
    """Return the files whose hashes are certified, by their role."""
    return {
        "config": CONFIG,
        "model before": f"forget/{forgetting.after}/{MODEL}" if forgetting.after else MODEL,
        "model after": forgetting.model_path.relative_to(folder.path).as_posix(),
    }


def _log_section(folder: RunFolder) -> dict[str, Any] | None:
    if not folder.log_path.is_dir():
        return None
    return UpdateLog.open(folder.log_path).summary()


def purged_section(folder: RunFolder, forgetting: StoredForgetting) -> dict[str, Any] | None:
    """Return the clients of a request that were purged, and from which logs; None if none were."""
    top, clients, logs = outermost(folder), set(forgetting.request.clients), []
    for run in runs_in(top):
        if not run.log_path.is_dir():
            continue
        log = UpdateLog.open(run.log_path)
        logs += [
            {
                "log": run.log_path.relative_to(top.path).as_posix(),
                "time": purge.time,
                "clients": list(purge.clients),
                "sha256-before": purge.sha256_before,
                "sha256-after": purge.sha256_after,
                "keys-destroyed": log.is_encrypted,
            }
            for purge in log.purges()
            if clients.intersection(purge.clients) and purge.sha256_after is not None
        ]
    return {"clients": list(forgetting.request.clients), "logs": logs} if logs else None

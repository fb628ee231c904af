"""One run, or a forgetting in it, on one screen; two runs beside each other. Nothing here imports torch."""

from collections.abc import Mapping
from typing import Any

from app.config.run_config import PLACE_KEYS, RunConfig
from app.forgettings.lineage import children
from app.forgettings.names import AUDIT, CERTIFICATE, RESULT
from app.forgettings.origin import read_origin
from app.report.headline import headline_of
from app.workflows.listing import pruned_in, row_of
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar
from strategies.runs.documents import rounds_in
from strategies.runs.files import read_json
from strategies.runs.folder import CONFIG, MODEL, REPORT, SUMMARY, RunFolder
from strategies.runs.home import MARKER

_FILES = {"model": MODEL, "config": CONFIG, "report": REPORT, "summary": SUMMARY, "log": "log"}


def run_on_a_screen(folder: RunFolder) -> dict[str, Any]:
    """Return what there is to say of a run, finished or not, as plain data."""
    row, marker = row_of(folder, folder.name), read_json(folder.path / MARKER)
    summary = folder.read_summary() if (folder.path / SUMMARY).exists() else {}
    paths = {what: folder.path / name for what, name in _FILES.items()}
    return {
        **row,
        "path": str(folder.path.absolute()),
        "id": marker.get("id", ""),
        "version": summary.get("lethe-version", ""),
        "config": changed_keys(folder),
        "data": _data(summary),
        "figures": figures_of(summary),
        "judged": summary.get("judged"),
        "privacy": summary.get("privacy"),
        "forgettings": [forgetting_on_a_screen(folder, name) for name in folder.forget_requests()],
        "pruned": [run.name for run in pruned_in(folder)],
        "parent": _parent(folder),
        "children": [
            {"run": name, "how": origin.how, "forgetting": origin.forgetting}
            for name, origin in children(folder).items()
        ],
        "files": {what: str(path.absolute()) for what, path in paths.items() if path.exists()},
    }


def forgetting_on_a_screen(folder: RunFolder, name: str) -> dict[str, Any]:
    """Return what there is to say of a forgetting, as plain data; `complete` is false for one half made.

    Raises
    ------
    BadInput
        If the run holds none of that name.
    """
    known = folder.forget_requests()
    if name not in known:
        raise BadInput(
            f"run '{folder.name}': no forgetting '{name}'; known: {', '.join(known) or 'none so far'}"
        )
    path = folder.path / "forget" / name
    found: dict[str, Any] = {"name": name, "complete": (path / RESULT).exists()}
    if not found["complete"]:
        return found
    result = read_json(path / RESULT)
    audit = read_json(path / AUDIT) if (path / AUDIT).exists() else None
    files = {"model": MODEL, "certificate": CERTIFICATE, "result": RESULT, "audit": AUDIT}
    return {
        **found,
        "request": result["request"],
        "method": result["method"],
        "after": result.get("after", ""),
        "seconds": result["seconds"],
        "notes": result.get("notes", []),
        "audit": audit,
        "files": {
            what: str((path / file).absolute()) for what, file in files.items() if (path / file).exists()
        },
    }


def changed_keys(folder: RunFolder) -> dict[str, Scalar]:
    """Return the keys of a run's config that are not at their default."""
    found, defaults = RunConfig.resolve(folder.path / CONFIG).to_flat(), RunConfig().to_flat()
    changed = {key: value for key, value in found.items() if value != defaults.get(key)}
    return {key: value for key, value in changed.items() if key not in PLACE_KEYS}


def figures_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return a finished run's figures on its test data, the headline first, then its other last numbers."""
    final = {key: value for key, value in (summary.get("final") or {}).items() if value is not None}
    headline = headline_of(summary)
    first = [headline.key] if headline is not None and headline.key in final else []
    return {key: final[key] for key in dict.fromkeys([*first, *final])}


def differences(first: RunFolder, second: RunFolder) -> dict[str, Any]:
    """Return what differs between two runs, each difference as a pair; figures whether they differ or not.

    ``config`` holds the keys that differ, ``data`` whatever was read from other files or has another size,
    ``code`` the version of Lethe and the SHA-256 of the project's code, ``figures`` both values and the
    second less the first (None: not measured).
    """
    folders = (first, second)
    configs = [RunConfig.resolve(folder.path / CONFIG).to_flat() for folder in folders]
    summaries = [folder.read_summary() if (folder.path / SUMMARY).exists() else {} for folder in folders]
    data = [{**_data(each), **_sources(folder)} for each, folder in zip(summaries, folders, strict=True)]
    config = {key: value for key, value in _pairs(*configs).items() if key not in PLACE_KEYS}
    codes = [
        {
            "version": each.get("lethe-version", ""),
            "project": _record(folder).get("project", {}).get("sha256"),
        }
        for each, folder in zip(summaries, folders, strict=True)
    ]
    return {
        "runs": [folder.name for folder in folders],
        "paths": [str(folder.path.absolute()) for folder in folders],
        "config": config,
        "data": _pairs(*data),
        "code": _pairs(*codes),
        "figures": _beside(*(_measured(each) for each in summaries)),
    }


def _measured(summary: Mapping[str, Any]) -> dict[str, float]:
    if not summary:
        return {}
    rounds = rounds_in(summary)
    return {**figures_of(summary), "rounds": rounds, "seconds": summary["seconds"]}


def _pairs(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the values that differ, by key; None where one of them has none."""
    keys = dict.fromkeys([*first, *second])
    return {key: [first.get(key), second.get(key)] for key in keys if first.get(key) != second.get(key)}


def _beside(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for key in dict.fromkeys([*first, *second]):
        a, b = first.get(key), second.get(key)
        found[key] = {"first": a, "second": b, "difference": None if a is None or b is None else b - a}
    return found


def _data(summary: Mapping[str, Any]) -> dict[str, Any]:
    data, clients = summary.get("data") or {}, summary.get("clients") or {}
    sizes = [each.get("num-examples") for each in clients.values()]
    return {
        **({"name": data["name"]} if "name" in data else {}),
        **({"clients": len(clients)} if clients else {}),
        **({"client-examples": sum(sizes)} if sizes and None not in sizes else {}),
        **{
            key: data[key]
            for key in ("test-examples", "validation-examples", "public-examples")
            if key in data
        },
    }


def _sources(folder: RunFolder) -> dict[str, Any]:
    """Return the SHA-256 of each file or folder that a run's data were read from, by key of its config."""
    sources = _record(folder).get("sources") or {}
    return {f"{key} (source)": source.get("sha256", source) for key, source in sources.items()}


def _record(folder: RunFolder) -> dict[str, Any]:
    """Return what a run recorded of the files and the code that it was made from; empty if nothing."""
    path = folder.path / "data.json"
    return read_json(path) if path.exists() else {}


def _parent(folder: RunFolder) -> dict[str, Any] | None:
    """Return where a run comes from, as recorded; None if it comes from no other."""
    if (origin := read_origin(folder)) is None:
        return None
    found = origin.to_json()
    return {key: found[key] for key in ("how", "run", "forgetting", "rounds", "id", "path")}

"""Lists the runs under a home. Nothing here imports torch: a list should be there at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.forgettings.names import RESULT
from app.report.headline import headline_of
from app.report.wording import epsilon_of
from strategies.runs.documents import Pruned, read_checked, rounds_in
from strategies.runs.files import read_json
from strategies.runs.folder import MODEL, PRUNED, PRUNING, RunFolder
from strategies.runs.home import MARKER, expand, folders_in


def list_runs(home: Path | str) -> list[dict[str, Any]]:
    """Return name, state, strategy, rounds, figures and forgettings of the runs under a home, by name.

    A pruned run, which lies in the run that it was made from, follows it.
    """
    place = expand(home)
    return [row for name in folders_in(place) for row in _rows(RunFolder(place / name))]


def pruned_in(folder: RunFolder) -> list[RunFolder]:
    """Return the runs that were made from a run by pruning it, by name."""
    home = folder.path / PRUNED
    return [RunFolder(home / name) for name in folders_in(home) if (home / name / MARKER).exists()]


def _rows(folder: RunFolder) -> Iterator[dict[str, Any]]:
    yield row_of(folder, folder.name)
    for sparse in pruned_in(folder):
        yield row_of(sparse, f"{folder.name}/{PRUNED}/{sparse.name}")


def row_of(folder: RunFolder, name: str) -> dict[str, Any]:
    """Return a run's row in the list of runs, under a name."""
    marker = folder.path / MARKER
    row: dict[str, Any] = {"name": name, "state": "unfinished"}
    if marker.exists() and (created := read_json(marker).get("created")):
        row["created"] = created
    if not (folder.path / MODEL).exists():
        return row
    summary = folder.read_summary()
    rounds = rounds_in(summary)
    row |= {"state": "finished", "strategy": summary["strategy"], "rounds": rounds}
    if (folder.path / PRUNING).exists():
        pruned = read_checked(folder.path / PRUNING, Pruned)
        row |= {"state": "pruned", "prune": pruned["prune"], "sparsity": pruned["sparsity"]}
    if (headline := headline_of(summary)) is not None:
        row["headline"] = {"name": headline.name, "value": summary["final"].get(headline.key)}
    if privacy := summary.get("privacy"):
        row["epsilon"] = epsilon_of(privacy)
    return row | {
        "test-accuracy": summary["final"].get("test-accuracy"),
        "figures": summary["final"],
        "seconds": summary["seconds"],
        "forgettings": folder.forget_requests(),
        "forgotten-clients": _forgotten_clients(folder),
    }


def _forgotten_clients(folder: RunFolder) -> list[str]:
    found = [folder.path / "forget" / name / RESULT for name in folder.forget_requests()]
    requests = [read_json(path).get("request") or {} for path in found if path.exists()]
    return sorted({str(client) for request in requests for client in request.get("clients") or ()})

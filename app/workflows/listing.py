"""Lists the runs under a home."""

from pathlib import Path
from typing import Any

from app.report.headline import headline_of
from strategies.runs.folder import MODEL, RunFolder
from strategies.runs.home import expand, folders_in


def list_runs(home: Path | str) -> list[dict[str, Any]]:
    """Return name, strategy, rounds, headline and forgettings of the runs under a home, oldest first."""
    return [_run_row(RunFolder(expand(home) / name)) for name in folders_in(expand(home))]


def _run_row(folder: RunFolder) -> dict[str, Any]:
    row: dict[str, Any] = {"name": folder.name, "state": "unfinished"}
    if (folder.path / MODEL).exists():
        summary = folder.read_summary()
        accuracy = summary["final"].get("test-accuracy")
        row |= {"state": "finished", "strategy": summary["strategy"], "rounds": summary["rounds"]}
        if (headline := headline_of(summary)) is not None:
            row["headline"] = {"name": headline.name, "value": summary["final"].get(headline.key)}
        row |= {
            "test-accuracy": accuracy,
            "seconds": summary["seconds"],
            "forgettings": folder.forget_requests(),
        }
    return row

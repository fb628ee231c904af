"""Puts the report together: properties and tables from the record, figures, and the template."""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.report import comparison_figure, comparison_tables, figures, head, wording
from app.report.client_models import client_models
from app.report.clients_table import clients_table
from app.report.evaluation_view import views
from app.report.forgetting_view import class_names, view
from app.report.headline import headline_of, is_scored
from app.report.privacy_view import privacy_view
from app.report.reading import RETRAIN, Forgetting, RunRecord, read_run
from app.report.suspects_view import sentences, suspects_table
from app.report.svg import Picture
from app.report.tables import NumberTable, Row
from app.report.template import rendered
from app.report.wording import COLUMNS, DISPARITY, MISSING, count, number
from strategies.core.wire import short_hash
from strategies.runs.files import to_json
from strategies.runs.folder import RunFolder

_MOST_FAULTY = 40
_MOST_REASONS = 3
_COSTS = ("seconds", "from clients", "to clients", "client visits", "update log")
_SECTIONS = {
    "facts": "The run",
    "forgetting": "Forgetting",
    "compared": "Methods compared",
    "reading": "How to read the columns",
    "learning": "Learning",
    "privacy": "Privacy",
    "client-models": "Clients' own models",
    "contributions": "What each client contributed",
    "suspects": "Which client looks bad",
    "labels": "How the data are spread",
    "faults": "Faults",
    "cost": "Time, bytes and visits",
    "settings": "Settings",
}
"""The sections of the page, in their order."""


@dataclass(frozen=True)
class ComparisonView:
    """One comparison of methods on the page."""

    title: str
    over: str
    picture: Picture
    tables: tuple[NumberTable, ...]
    notes: tuple[str, ...]
    conclusions: tuple[str, ...]


def write_report(folder: RunFolder) -> Path:
    """Write a run's report and return the path of ``report.html``.

    It is one HTML file that needs nothing else, for screens light and dark and for paper. The run may be in
    any state: unfinished, without log, attack, evaluation or forgetting.

    Raises
    ------
    RunCorrupt
        If a file of the run is damaged.
    LetheError
        If the disk does not take the file.
    """
    return folder.write_report(render(read_run(folder)))


def render(record: RunRecord) -> str:
    """Return the report of a run as HTML."""
    return rendered("run", _context(record))


def _context(record: RunRecord) -> dict[str, Any]:
    contributions = record.contributions
    faults = _faults(record)
    privacy, own = privacy_view(record), client_models(record.rounds)
    explained = bool(record.comparisons) or any(f.audit is not None for f in record.forgettings)
    present = {"compared": record.comparisons, "reading": explained, "privacy": privacy, "client-models": own}
    present["suspects"] = record.suspects
    return {
        "name": record.name,
        "file_name": file_name(record.name),
        "subtitle": head.subtitle(record),
        "problems": list(head.warnings(record)),
        "cards": list(head.cards(record)),
        "in_short": list(head.in_short(record)),
        "contents": [(key, words) for key, words in _SECTIONS.items() if present.get(key, True)],
        "facts": list(head.properties(record)),
        "links": record.links,
        "data": data_uri(record_json(record)),
        "forgettings": [view(f, record, position) for position, f in enumerate(_in_detail(record))],
        "overview": _overview(record.forgettings),
        "columns": COLUMNS,
        "comparisons": [_comparison(document, place) for place, document in enumerate(record.comparisons)],
        "explained": explained,
        "disparity_meaning": DISPARITY,
        "scored": is_scored(record.summary),
        "evaluations": views(record.summary, class_names(record)),
        "learning": figures.learning_curve(
            record.rounds, headline_of(record.summary), record.summary.get("judged")
        ),
        "client_models": own,
        "privacy": privacy,
        "contributions": contributions and figures.contribution_map(record, contributions),
        "averaging": contributions is None or contributions.averaging,
        "clients": clients_table(record),
        "suspects": suspects_table(record.suspects) if record.suspects else None,
        "suspicions": list(sentences(record.suspects, record.name)) if record.suspects else [],
        "labels": figures.label_map(record, class_names(record)),
        "faults": _fault_table(faults[:_MOST_FAULTY]),
        "more_faults": _more_faults(faults),
        "costs": NumberTable("What the work took.", "work", _COSTS, tuple(_costs(record))),
        "config_toml": record.config_toml,
    }


def file_name(name: str) -> str:
    """Return a name that a downloaded file can have, of any text.

    >>> file_name("first run/2")
    'first-run-2'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or short_hash(name)


def record_json(record: RunRecord) -> dict[str, Any]:
    """Return all figures of a run as plain data, for a download."""
    return {
        "name": record.name,
        "created": record.created,
        "config": dict(record.settings),
        "summary": dict(record.summary),
        "rounds": list(record.rounds),
        "forgettings": [
            {"name": f.name, "result": dict(f.result), "audit": f.audit and dict(f.audit)}
            for f in record.forgettings
        ],
        "comparisons": list(record.comparisons),
        "suspects": dict(record.suspects) or None,
    }


def data_uri(document: Mapping[str, Any]) -> str:
    """Return plain data as the address of a file with them."""
    content = to_json(document, indent=1).encode(errors="backslashreplace")  # as JSON escapes them, too
    return "data:application/json;base64," + base64.b64encode(content).decode()


def _in_detail(record: RunRecord) -> list[Forgetting]:
    """Return the forgettings to show in detail; a retraining is shown with those compared with it."""
    compared = [f.request for f in record.forgettings if f.audit is not None and f.method != RETRAIN]
    return [f for f in record.forgettings if f.method != RETRAIN or f.request not in compared]


def _overview(forgettings: Sequence[Forgetting]) -> NumberTable | None:
    """Return all forgettings in a table, if there are several."""
    if len(forgettings) < 2:
        return None
    columns = ("method", "seconds", "disparity, points", "verdict")
    rows = tuple(overview_row(forgetting) for forgetting in forgettings)
    return NumberTable(
        "All requests that were answered.", "forgotten", columns, rows, texts=("method", "verdict")
    )


def overview_row(forgetting: Forgetting) -> Row:
    """Return a forgetting in a row: what, by which method, how long it took, how near it came."""
    audit, method = forgetting.audit, forgetting.method
    disparity = "not audited" if audit is None else number(wording.headline(audit))
    return Row(
        wording.subject(forgetting.request) + (f", after {forgetting.after}" if forgetting.after else ""),
        (
            method,
            wording.seconds(forgetting.result.get("seconds")),
            "reference" if method == RETRAIN else disparity,
            "" if audit is None else wording.outcome(audit),
        ),
    )


def _comparison(document: Mapping[str, Any], position: int) -> ComparisonView:
    return ComparisonView(
        comparison_tables.title(document),
        comparison_tables.over(document),
        comparison_figure.picture(document, f"methods-{position}"),
        tuple(table.on_page() for table in comparison_tables.tables(document)),
        tuple(wording.capital(note) for note in document["notes"]),
        tuple(document.get("conclusions", ())),
    )


def _faults(record: RunRecord) -> list[tuple[str, list[str]]]:
    """Return the faults of each client, most faults first."""
    by_client = record.faults
    return sorted(by_client.items(), key=lambda item: -len(item[1]))


def _fault_table(faults: Sequence[tuple[str, list[str]]]) -> NumberTable | None:
    rows = tuple(Row(client, (str(len(what)), _in_words(what))) for client, what in faults)
    columns = ("faults", "what happened")
    return (
        NumberTable("Clients with faults, most first.", "client", columns, rows, texts=columns[1:])
        if rows
        else None
    )


def _in_words(faults: Sequence[str]) -> str:
    more = len(faults) - _MOST_REASONS
    return "; ".join(faults[:_MOST_REASONS]) + (f"; and {more} more" if more > 0 else "")


def _more_faults(faults: Sequence[tuple[str, list[str]]]) -> str:
    rest = faults[_MOST_FAULTY:]
    if not rest:
        return ""
    total = sum(len(what) for _, what in rest)
    return f"Not shown: {count(len(rest), 'client')} more, with {count(total, 'fault')}."


def _costs(record: RunRecord) -> Iterator[Row]:
    keys = ("bytes-up", "bytes-down", "visits")
    summed = {key: sum(line.get(key) or 0 for line in record.rounds) for key in ("seconds", *keys[:2])}
    training = record.summary.get("traffic") or {**summed, "visits": None}
    log = record.summary.get("log") or {}
    yield _cost("training", record.summary.get("seconds", summed["seconds"]), training, log.get("bytes"))
    for forgetting in record.forgettings:
        label = f"forgetting {wording.subject(forgetting.request)} by {forgetting.method}"
        yield _cost(label, forgetting.result.get("seconds"), forgetting.result.get("traffic") or {})


def _cost(
    label: str, seconds: float | None, traffic: Mapping[str, Any], stored_bytes: int | None = None
) -> Row:
    sizes = (traffic.get("bytes-up"), traffic.get("bytes-down"), stored_bytes)
    up, down, stored = (MISSING if size is None else wording.size(size) for size in sizes)
    visits = traffic.get("visits")
    return Row(
        label, (wording.seconds(seconds), up, down, MISSING if visits is None else f"{visits:,}", stored)
    )

"""Puts the report together: properties and tables from the record, figures, and the template."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from app.report import (
    comparison_figure,
    comparison_tables,
    figures,
    head,
    wording,
)
from app.report.client_models import client_models
from app.report.evaluation_view import views
from app.report.forgetting_view import Row, class_names, view
from app.report.headline import headline_of, is_scored
from app.report.privacy_view import privacy_view
from app.report.reading import RETRAIN, Forgetting, RunRecord, read_run
from app.report.svg import Picture
from app.report.template import PAGE, STYLE_SHEET
from app.report.wording import COLUMNS, DISPARITY, MISSING, count, number
from app.version import version
from strategies.runs.folder import RunFolder

_MOST_FAULTY = 40
_MOST_REASONS = 3


@dataclass(frozen=True)
class FaultRow:
    """The faults of one client."""

    client: str
    count: int
    what: str


@dataclass(frozen=True)
class OverviewRow:
    """One forgetting in the list of all."""

    subject: str
    method: str
    seconds: str
    disparity: str


@dataclass(frozen=True)
class ComparisonView:
    """One comparison of methods on the page."""

    title: str
    over: str
    picture: Picture
    tables: tuple[comparison_tables.Table, ...]
    notes: tuple[str, ...]


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
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(PAGE).render(_context(record)) + "\n"


def _context(record: RunRecord) -> dict[str, Any]:
    contributions = record.contributions
    faults = _faults(record)
    return {
        "version": version(),
        "style_sheet": Markup(STYLE_SHEET),
        "name": record.name,
        "subtitle": head.subtitle(record),
        "problems": list(head.warnings(record)),
        "in_short": list(head.in_short(record)),
        "facts": list(head.properties(record)),
        "forgettings": [view(f, record, position) for position, f in enumerate(_in_detail(record))],
        "overview": [_overview(f) for f in record.forgettings] if len(record.forgettings) > 1 else [],
        "columns": COLUMNS,
        "comparisons": [_comparison(document, place) for place, document in enumerate(record.comparisons)],
        "explained": bool(record.comparisons) or any(f.audit is not None for f in record.forgettings),
        "disparity_meaning": DISPARITY,
        "scored": is_scored(record.summary),
        "evaluations": views(record.summary, class_names(record)),
        "learning": figures.learning_curve(record.rounds, headline_of(record.summary)),
        "client_models": client_models(record.rounds),
        "privacy": privacy_view(record),
        "contributions": contributions and figures.contribution_map(record, contributions),
        "averaging": contributions is None or contributions.averaging,
        "labels": figures.label_map(record, class_names(record)),
        "faults": faults[:_MOST_FAULTY],
        "more_faults": _more_faults(faults),
        "costs": list(_costs(record)),
        "config_toml": record.config_toml,
    }


def _in_detail(record: RunRecord) -> list[Forgetting]:
    """Return the forgettings to show in detail; a retraining is shown with those compared with it."""
    compared = [f.request for f in record.forgettings if f.audit is not None and f.method != RETRAIN]
    return [f for f in record.forgettings if f.method != RETRAIN or f.request not in compared]


def _overview(forgetting: Forgetting) -> OverviewRow:
    audit, method = forgetting.audit, forgetting.method
    disparity = "not audited" if audit is None else number(wording.headline(audit))
    return OverviewRow(
        wording.subject(forgetting.request) + (f", after {forgetting.after}" if forgetting.after else ""),
        method,
        wording.seconds(forgetting.result.get("seconds")),
        "reference" if method == RETRAIN else disparity,
    )


def _comparison(document: Mapping[str, Any], position: int) -> ComparisonView:
    return ComparisonView(
        comparison_tables.title(document),
        comparison_tables.over(document),
        comparison_figure.picture(document, f"methods-{position}"),
        comparison_tables.tables(document),
        tuple(wording.capital(note) for note in document["notes"]),
    )


def _faults(record: RunRecord) -> list[FaultRow]:
    """Return the faults of each client, most faults first."""
    rounds = [fault for line in record.rounds for fault in line.get("faults") or ()]
    faults: Sequence[Mapping[str, Any]] = record.summary.get("faults") or rounds
    by_client: dict[str, list[str]] = {}
    for fault in faults:
        by_client.setdefault(str(fault["client"]), []).append(f"{fault['scope']}: {fault['reason']}")
    rows = [FaultRow(client, len(what), _in_words(what)) for client, what in by_client.items()]
    return sorted(rows, key=lambda row: -row.count)


def _in_words(faults: Sequence[str]) -> str:
    more = len(faults) - _MOST_REASONS
    return "; ".join(faults[:_MOST_REASONS]) + (f"; and {more} more" if more > 0 else "")


def _more_faults(rows: Sequence[FaultRow]) -> str:
    rest = rows[_MOST_FAULTY:]
    if not rest:
        return ""
    return f"Not shown: {count(len(rest), 'client')} more, with {count(sum(r.count for r in rest), 'fault')}."


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

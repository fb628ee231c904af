"""Several runs in one page: figures in a table, curves in one figure, differences of the configs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.config.run_config import PLACE_KEYS
from app.report.axes import Box, Curve, Span, curves_panel
from app.report.figures import curves_table
from app.report.head import last_figure, rounds_in_model
from app.report.headline import Headline, headline_of
from app.report.page import data_uri, file_name, overview_row, record_json
from app.report.reading import RunRecord, link_between, read_run
from app.report.svg import MARKERS, SERIES, Drawing, Pen, Picture, drawn, short_label
from app.report.tables import NumberTable, Row, measured_columns
from app.report.template import rendered
from app.report.wording import MISSING, capital, figure, listed, most_spent, number, seconds, size, verdict
from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.core.wire import short_hash
from strategies.runs.files import write_text
from strategies.runs.folder import REPORT, RunFolder

MOST_RUNS = 12
"""Runs that one page shows."""
_RATES = ("test-accuracy", "personal-accuracy", "validation-accuracy", "attack-success-rate")
_LOSSES = ("test-loss", "client-loss", "train-loss")
_TITLES = {
    "test-accuracy": "Test accuracy, %",
    "personal-accuracy": "Accuracy after personalisation, %",
    "validation-accuracy": "Validation accuracy, %",
    "attack-success-rate": "Attack success rate, %",
    "test-loss": "Loss on test data",
    "client-loss": "Loss on what clients hold out",
    "train-loss": "Loss on clients' training data",
}
_LONGEST = 120
_DASHES = ("-", "--", ":")


def write_side_by_side(folders: Sequence[RunFolder], target: Path) -> Path:
    """Write a page with several runs side by side, and return its path.

    Raises
    ------
    BadInput
        If a run is given twice, or there are more than `MOST_RUNS`.
    RunCorrupt
        If a file of a run is damaged.
    LetheError
        If the disk does not take the file.
    """
    paths = [folder.path.resolve() for folder in folders]
    for folder, path in zip(folders, paths, strict=True):
        if paths.count(path) > 1:
            raise BadInput(f"RUN: given {shown(folder.name)} twice, expected different runs")
    if len(folders) > MOST_RUNS:
        raise BadInput(f"RUN: given {len(folders)} runs, allowed at most {MOST_RUNS} on one page")
    records = _distinct([read_run(folder) for folder in folders])
    links = [
        link_between(target.parent, folder.path / REPORT, f"the report of {record.name}")
        for folder, record in zip(folders, records, strict=True)
        if (folder.path / REPORT).exists()
    ]
    names = listed(record.name for record in records)
    present = {"figures": "Figures", "learning": "Learning", "config": "Config", "forgetting": "Forgetting"}
    context = {
        "names": names,
        "file_name": file_name(names),
        "problems": [f"{r.name}: this run is not finished." for r in records if not r.summary],
        "contents": list(present.items()),
        "figures": _figures(records),
        "links": links,
        "data": data_uri({"runs": [record_json(record) for record in records]}),
        "curves": list(_curves(records)),
        "differences": _differences(records),
        "forgettings": _forgettings(records),
        "verdicts": list(_verdicts(records)),
    }
    write_text(target, rendered("runs", context))
    return target


def page_name(names: Sequence[str]) -> str:
    """Return a file name for a page of runs.

    >>> page_name(["first", "second"])
    'first+second.html'
    """
    joined = "+".join(map(file_name, names))
    return f"{joined if len(joined) <= _LONGEST else 'runs-' + short_hash(joined)}.html"


def _distinct(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs with names that tell them apart, where runs of several homes have one name."""
    names = [record.name for record in records]
    return [
        replace(record, name=f"{record.name} ({place + 1})") if names.count(record.name) > 1 else record
        for place, record in enumerate(records)
    ]


def _figures(records: Sequence[RunRecord]) -> NumberTable:
    headlines = list(dict.fromkeys(h for record in records if (h := headline_of(record.summary))))
    columns = {headline.words: headline for headline in headlines}
    rows = []
    for record in records:
        own = headline_of(record.summary)
        lines = rounds_in_model(record)
        cells = [
            figure(headline.name, last_figure(lines, headline.key) if headline == own else None)
            for headline in columns.values()
        ]
        rows.append(Row(record.name, (*cells, *_costs(record, lines))))
    titles = (*columns, "backdoor, %", "test loss", "rounds", "clients", "ε", "seconds", "from clients")
    return measured_columns(NumberTable("The figures of each run's model.", "run", titles, tuple(rows)))


def _costs(record: RunRecord, lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    summary = record.summary
    yield number(last_figure(lines, "attack-success-rate"))
    yield number(last_figure(lines, "test-loss"), 3)
    yield str(lines[-1]["round"]) if lines else MISSING
    yield f"{len(summary['clients']):,}" if summary.get("clients") else MISSING
    yield most_spent(summary["privacy"]) if summary.get("privacy") else MISSING
    yield seconds(summary.get("seconds"))
    up = (summary.get("traffic") or {}).get("bytes-up")
    yield MISSING if up is None else size(up)


def _curves(records: Sequence[RunRecord]) -> Iterator[Picture]:
    """Yield a figure for each number that two runs measured, or that is a run's headline."""
    own: dict[str, Headline] = {}
    for record in records:
        if (headline := headline_of(record.summary)) is not None:
            own.setdefault(headline.key, headline)
    for key in dict.fromkeys((*own, *_RATES, *_LOSSES)):
        curves = [_curve(record, key, place) for place, record in enumerate(records)]
        if sum(bool(curve.points) for curve in curves) >= (1 if key in own else 2):
            title = _TITLES.get(key) or capital(own[key].words)
            yield _picture(curves, title, f"runs-{key}", Span(0.0, 100.0) if key in _RATES else None)


def _curve(record: RunRecord, key: str, place: int) -> Curve:
    points = [(line["round"], float(line[key])) for line in record.rounds if line.get(key) is not None]
    dash = _DASHES[place // len(SERIES) % len(_DASHES)]
    pen = Pen(SERIES[place % len(SERIES)], MARKERS[place % (len(MARKERS) - 1)], dash)
    name = "accuracy" if key in _RATES else "loss"
    return Curve(record.name, points, pen, name, " %" if key in _RATES else "")


def _picture(curves: Sequence[Curve], title: str, name: str, span: Span | None) -> Picture:
    known = [curve for curve in curves if curve.points]
    ends = (f"{c.label} {figure(c.name, c.points[-1][1])} after round {c.points[-1][0]:g}" for c in known)
    words = f"{title}: {listed(ends)}."

    def draw(drawing: Drawing) -> float:
        length = 34 if drawing.is_narrow else 60
        legend = [(short_label(curve.label, length), curve.pen) for curve in known]
        box = Box(0.0, 0.0, drawing.width, 230.0)
        return curves_panel(drawing, box, known, title, y=span, legend=legend)

    return drawn(draw, name, words, curves_table(known, f"{title}, by round."))


def _differences(records: Sequence[RunRecord]) -> NumberTable | None:
    """Return the keys of the config in which the runs differ; None if they do not."""
    keys = dict.fromkeys(key for record in records for key in record.settings if key not in PLACE_KEYS)
    rows = []
    for key in keys:
        values = [record.settings.get(key, MISSING) for record in records]
        if len({repr(value) for value in values}) > 1:
            rows.append(Row(key, tuple(str(value) for value in values)))
    columns = tuple(record.name for record in records)
    caption = "The keys in which the runs differ."
    return NumberTable(caption, "key", columns, tuple(rows), texts=columns) if rows else None


def _forgettings(records: Sequence[RunRecord]) -> NumberTable | None:
    rows = []
    for record in records:
        answered = map(overview_row, record.forgettings)
        rows += [Row(record.name, (row.label, *row.cells)) for row in answered]
    columns = ("forgotten", "method", "seconds", "disparity, points", "verdict")
    texts = ("forgotten", "method", "verdict")
    caption = "All requests that were answered."
    return NumberTable(caption, "run", columns, tuple(rows), texts=texts) if rows else None


def _verdicts(records: Sequence[RunRecord]) -> Iterator[str]:
    for record in records:
        for forgetting in record.forgettings:
            if said := verdict(forgetting.audit or {}):
                yield f"{record.name}, {forgetting.method}: {said}."

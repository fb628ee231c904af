"""The report on clients with models of their own: a figure and a table, from the lines of the rounds.

Either each client has only its own model, or all share one that each personalises.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.report.axes import Box, Curve, Span, curves_panel, panels
from app.report.dots import dots_panel
from app.report.svg import BLUE, MUTED, ORANGE, Drawing, Pen, Picture, drawn
from app.report.tables import NumberTable, Row
from app.report.wording import MISSING, count, gap, number
from strategies.core.wire import client_sort_key
from strategies.personal import measuring as personal

_BEFORE, _BOUND, _AFTER = "baseline-accuracy", "upper-bound", "accuracy"
_SHARED = {personal.GLOBAL: _BEFORE, personal.PERSONAL: _AFTER}
"""Where clients personalise: their figures, and which of those of own models they stand for."""


_MARKS = {
    _BEFORE: ("before", Pen(MUTED, "o", hollow=True, width=0)),
    _AFTER: ("after", Pen(BLUE, "o", width=0)),
    _BOUND: ("all data", Pen(ORANGE, "d", width=0)),
}
_COLUMNS = ("before, %", "after, %", "gain", "all data, %", "gap to all data")

_ALONE = "Test accuracy before the first round, after the last, and with all clients' data."
_PERSONALISED = "Accuracy before and after personalisation, each client on test data as its own are."


@dataclass(frozen=True)
class ClientModels:
    """The section on clients' models.

    `picture` shows the accuracy of each client before, after, and with all data; `table` holds one row per
    client, and their mean.
    """

    picture: Picture
    table: NumberTable


def client_models(rounds: Sequence[Mapping[str, Any]]) -> ClientModels | None:
    """Return the last figures of every client; None if no client was measured with a model of its own."""
    lines = [(int(line["round"]), _renamed(line.get("clients") or {})) for line in rounds]
    shares = any(
        personal.PERSONAL in measured for line in rounds for measured in (line.get("clients") or {}).values()
    )
    needed = {_BEFORE, _AFTER} if shares else {_AFTER}
    latest = {
        i: figures for _, measured in lines for i, figures in measured.items() if needed <= figures.keys()
    }
    if not latest:
        return None
    clients = {i: latest[i] for i in sorted(latest, key=client_sort_key)}
    columns = _COLUMNS[:3] if shares else _COLUMNS
    rows = [Row(f"client {i}", _cells(figures)[: len(columns)]) for i, figures in clients.items()]
    rows.append(Row("mean", _cells(_mean(list(clients.values())))[: len(columns)]))
    if shares:
        rows.append(Row("worst tenth", _cells(_worst(list(clients.values())))[: len(columns)]))
    caption = _words(clients, shares)
    picture = drawn(lambda drawing: _draw(drawing, lines, clients), "clients-models", caption)
    said = _PERSONALISED if shares else _ALONE
    return ClientModels(picture, NumberTable(said, "client", columns, tuple(rows)))


def _renamed(clients: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float]]:
    """Return the clients' figures under common names, without those that were not finite."""
    return {
        i: {_SHARED.get(key, key): v for key, v in figures.items() if v is not None}
        for i, figures in clients.items()
    }


def _worst(clients: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of the lowest tenth of each figure, over whichever clients these are."""
    return {key: personal.worst([figures[key] for figures in clients]) for key in (_BEFORE, _AFTER)}


def _mean(clients: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each figure that every client has."""
    shared = [key for key in (_BEFORE, _AFTER, _BOUND) if all(key in figures for figures in clients)]
    return {key: float(np.mean([figures[key] for figures in clients])) for key in shared}


def _cells(figures: Mapping[str, float]) -> tuple[str, ...]:
    before, after, bound = (figures.get(key) for key in (_BEFORE, _AFTER, _BOUND))
    gain = None if before is None or after is None else after - before
    missing = None if bound is None or after is None else after - bound
    shown = [MISSING if value is None else number(value) for value in (before, after, bound)]
    gaps = [MISSING if value is None else gap(value) for value in (gain, missing)]
    return (shown[0], shown[1], gaps[0], shown[2], gaps[1])


def _draw(
    drawing: Drawing,
    lines: Sequence[tuple[int, Mapping[str, Mapping[str, float]]]],
    clients: Mapping[str, Mapping[str, float]],
) -> float:
    whole = Span(0.0, 100.0)

    def panel(place: int, box: Box) -> float:
        if place == 0:
            pen = Pen(BLUE, "o", width=1.2)
            curves = [Curve(f"client {i}", _course(lines, i), pen, "accuracy", " %") for i in clients]
            title = "Each client's test accuracy"
            return curves_panel(drawing, box, curves, title, y=whole, unit="%", legend=[])
        series = [
            (label, {i: found[key] for i, found in clients.items() if key in found}, pen)
            for key, (label, pen) in _MARKS.items()
        ]
        shown = [entry for entry in series if entry[1]]
        return dots_panel(drawing, box, shown, list(clients), "Before and after", y=whole, unit="%")

    return panels(drawing, [3, 4], 190.0, panel)


def _course(
    lines: Sequence[tuple[int, Mapping[str, Mapping[str, float]]]], client_id: str
) -> list[tuple[float, float]]:
    found = ((place, measured.get(client_id, {})) for place, measured in lines)
    return [(place, figures[_AFTER]) for place, figures in found if _AFTER in figures]


def _words(clients: Mapping[str, Mapping[str, float]], shares: bool) -> str:
    mean = _mean(list(clients.values()))
    if shares:
        return (
            f"{count(len(clients), 'client')}, each on test data as its own are: mean accuracy "
            f"{number(mean[_BEFORE])} % with the model that all share, {number(mean[_AFTER])} % after "
            "personalisation."
        )
    parts = [f"{count(len(clients), 'client')}, each with a model of its own"]
    if _BEFORE in mean:
        parts.append(f"mean accuracy {number(mean[_BEFORE])} % before the first round")
    parts.append(f"{number(mean[_AFTER])} % after the last")
    if _BOUND in mean:
        parts.append(f"{number(mean[_BOUND])} % for the same models trained on all clients' data")
    return f"Clients' models: {', '.join(parts)}."

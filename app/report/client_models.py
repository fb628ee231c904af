"""The report on clients with models of their own: a figure and a table, from the lines of the rounds.

Either each client has only its own model, or all share one that each personalises.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from app.report.forgetting_view import Row
from app.report.svg import (
    BLUE,
    MUTED,
    ORANGE,
    Picture,
    Sheet,
    drawn,
    legend_above,
    name_clients,
    style_axes,
)
from app.report.wording import MISSING, count, gap, number
from strategies.core.wire import client_sort_key
from strategies.personal import measuring as personal

_BEFORE, _BOUND, _AFTER = "baseline-accuracy", "upper-bound", "accuracy"
_SHARED = {personal.GLOBAL: _BEFORE, personal.PERSONAL: _AFTER}
"""Where clients personalise: their figures, and which of those of own models they stand for."""


_COLUMNS = ("before, %", "after, %", "gain", "all data, %", "gap to all data")

_ALONE = "Test accuracy before the first round, after the last, and with all clients' data."
_PERSONALISED = "Accuracy before and after personalisation, each client on test data as its own are."


@dataclass(frozen=True)
class ClientModels:
    """The section on clients' models.

    `picture` shows the accuracy of each client before, after, and with all data. `columns` are the headings
    behind the client's name; `rows` hold one row per client, and their mean.
    """

    picture: Picture
    table_caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


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
    picture = drawn(lambda sheet: _figure(sheet, lines, clients), "clients-models", caption)
    return ClientModels(picture, _PERSONALISED if shares else _ALONE, columns, tuple(rows))


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


def _figure(
    sheet: Sheet,
    lines: Sequence[tuple[int, Mapping[str, Mapping[str, float]]]],
    clients: Mapping[str, Mapping[str, float]],
) -> Figure:
    figure, (left, right) = sheet.panels(3.0, [3, 4], [2.2, 2.6])
    style_axes(left, "Each client's test accuracy", "round", "%")
    for client_id in clients:
        points = [
            (server_round, measured[client_id][_AFTER])
            for server_round, measured in lines
            if _AFTER in measured.get(client_id, {})
        ]
        left.plot(
            *zip(*points, strict=True), color=BLUE, alpha=0.5, linewidth=1.2, marker="o", markersize=2.5
        )
    left.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    style_axes(right, "Before and after", "client", "%")
    marks = {_BEFORE: ("before", "o", MUTED), _AFTER: ("after", "o", BLUE), _BOUND: ("all data", "D", ORANGE)}
    for key, (label, marker, colour) in marks.items():
        places = [place for place, figures in enumerate(clients.values()) if key in figures]
        values = [figures[key] for figures in clients.values() if key in figures]
        if values:
            right.plot(places, values, marker, color=colour, label=label, markersize=5)
    name_clients(right, list(clients))
    legend_above(right)
    for axes in (left, right):
        axes.set_ylim(-3, 103)
    return figure


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

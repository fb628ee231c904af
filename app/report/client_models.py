"""The report on clients with models of their own: a figure and a table, from the lines of the rounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from app.report.canvas import BLUE, MUTED, ORANGE, Picture, legend_above, new_figure, style_axes, to_svg
from app.report.forgetting_view import Row
from app.wording import MISSING, count, gap, number
from strategies.wire import client_sort_key

_BEFORE, _BOUND, _AFTER = "baseline-accuracy", "upper-bound", "accuracy"


@dataclass(frozen=True)
class ClientModels:
    """What the page shows.

    Parameters
    ----------
    picture
        Accuracy of each client before, after, and with all data.
    columns
        Headings of the table behind the client's name.
    rows
        One per client, and their mean.
    """

    picture: Picture
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def client_models(rounds: Sequence[Mapping[str, Any]]) -> ClientModels | None:
    """Return the last figures of every client; None where no client was measured with a model of its own."""
    latest: dict[str, dict[str, float]] = {}
    for line in rounds:
        for client_id, figures in (line.get("clients") or {}).items():
            if _AFTER in figures:
                latest[client_id] = dict(figures)
    if not latest:
        return None
    clients = {i: latest[i] for i in sorted(latest, key=client_sort_key)}
    rows = [Row(f"client {i}", _cells(figures)) for i, figures in clients.items()]
    rows.append(Row("mean", _cells(_mean(list(clients.values())))))
    columns = ("before, %", "after, %", "gain", "all data, %", "gap to all data")
    return ClientModels(_picture(rounds, clients), columns, tuple(rows))


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


def _picture(rounds: Sequence[Mapping[str, Any]], clients: Mapping[str, Mapping[str, float]]) -> Picture:
    figure = new_figure(3.0)
    left, right = figure.subplots(1, 2, width_ratios=[3, 4])
    style_axes(left, "Each client's test accuracy", "round", "%")
    for client_id in clients:
        points = [
            (line["round"], line["clients"][client_id][_AFTER])
            for line in rounds
            if _AFTER in (line.get("clients") or {}).get(client_id, {})
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
    right.set_xticks(range(len(clients)), labels=[str(i)[:8] for i in clients])
    legend_above(right)
    for axes in (left, right):
        axes.set_ylim(-3, 103)
    caption = _words(clients)
    return Picture(to_svg(figure, "clients-models", caption), caption)


def _words(clients: Mapping[str, Mapping[str, float]]) -> str:
    mean = _mean(list(clients.values()))
    parts = [f"{count(len(clients), 'client')}, each with a model of its own"]
    if _BEFORE in mean:
        parts.append(f"mean accuracy {number(mean[_BEFORE])} % before the first round")
    parts.append(f"{number(mean[_AFTER])} % after the last")
    if _BOUND in mean:
        parts.append(f"{number(mean[_BOUND])} % for the same models trained on all clients' data")
    return f"Clients' models: {', '.join(parts)}."

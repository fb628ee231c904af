"""The figures of the report: each a function from numbers to a picture with its caption."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from app.report.headline import Headline
from app.report.reading import Contributions, RunRecord
from app.report.svg import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    RED,
    Picture,
    Sheet,
    drawn,
    is_narrow,
    legend_above,
    plain,
    short_label,
    style_axes,
)
from app.report.wording import COLUMNS, MISSING, Column, count, figure, gap, listed, number

_MARKERS = {
    "before": ("before", "o", "none", MUTED, 4),
    "after": ("after", "o", BLUE, BLUE, 3),
    "retrain": ("retrained", "D", ORANGE, ORANGE, 2),
}
"""Label, marker, fill, edge and height in the pile by model."""
_CURVES = ("personal-accuracy", "test-accuracy", "attack-success-rate", "test-loss", "train-loss")
Matrix = npt.NDArray[np.float64]

_COLOURS = ListedColormap(mpl.colormaps["YlGnBu"](np.linspace(0.08, 0.95, 128)))
"""Light to dark, safe for colour-blind readers and sparing of ink; its light end stands out from paper."""
_MOST_NAMED = 30
"""Rows beyond which those of a heat map grow thinner, not the map higher; only marked ones are named."""
_MOST_WRITTEN = 400
"""Cells beyond which a heat map shows colours without text."""


def learning_curve(rounds: Sequence[Mapping[str, Any]], headline: Headline | None = None) -> Picture | None:
    """Draw the headline, attack success and loss over the rounds; None if no round reports any of them.

    Without a headline, or where it is that, the accuracy on test data is drawn, in percent.
    """
    curves = {key: _series(rounds, key) for key in _CURVES}
    if headline is not None and headline.key not in curves:
        curves = {headline.key: _series(rounds, headline.key), **_losses(rounds, curves)}
        if any(curves.values()):
            words = f"Learning curve: {_course(curves[headline.key], headline)}."
            return drawn(lambda sheet: _headline_figure(sheet, curves, headline), "learning", words)
    if not any(curves.values()):
        return None
    return drawn(lambda sheet: _learning_figure(sheet, curves), "learning", _learning_words(curves))


def _losses(
    rounds: Sequence[Mapping[str, Any]], curves: Mapping[str, list[tuple[int, float]]]
) -> dict[str, list[tuple[int, float]]]:
    own = curves["test-loss"] or _series(rounds, "client-loss")
    return {"test-loss": own, "train-loss": curves["train-loss"]}


def _course(points: Sequence[tuple[int, float]], headline: Headline) -> str:
    better = "the higher, the better" if headline.higher_is_better else "the lower, the better"
    if not points:
        return f"{headline.words} ({better}) was measured in no round"
    (first, start), (last, end) = points[0], points[-1]
    numbers = f"{figure(headline.name, start)} after round {first}, {figure(headline.name, end)} after {last}"
    return f"{headline.words} ({better}) {numbers}"


def _headline_figure(
    sheet: Sheet, curves: Mapping[str, Sequence[tuple[int, float]]], headline: Headline
) -> Figure:
    drawing, (left, right) = sheet.panels(3.0, [4, 3], [2.6, 2.2])
    arrow = "higher is better" if headline.higher_is_better else "lower is better"
    style_axes(left, headline.words, "round", arrow)
    _draw_curve(left, curves[headline.key], headline.words, BLUE, "o", "-")
    style_axes(right, "Loss", "round", "")
    _draw_curve(right, curves["test-loss"], "test data", BLUE, "o", "-")
    _draw_curve(right, curves["train-loss"], "clients' training data", ORANGE, "^", "--")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        if axes.lines:
            legend_above(axes)
    return drawing


def _learning_figure(sheet: Sheet, curves: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    lossy = bool(curves["test-loss"] or curves["train-loss"])
    figure, panels = sheet.panels(3.0, [4, 3] if lossy else [1], [2.6, 2.2] if lossy else [2.6])
    left = panels[0]
    style_axes(left, "Accuracy on test data", "round", "%")
    _draw_curve(left, curves["personal-accuracy"], "after personalisation", GREEN, "D", "-")
    _draw_curve(left, curves["test-accuracy"], "test accuracy", BLUE, "o", "-")
    _draw_curve(left, curves["attack-success-rate"], "attack success rate", RED, "s", "--")
    left.set_ylim(-3, 103)
    for right in panels[1:]:
        style_axes(right, "Loss", "round", "cross-entropy")
        _draw_curve(right, curves["test-loss"], "test data", BLUE, "o", "-")
        _draw_curve(right, curves["train-loss"], "clients' training data", ORANGE, "^", "--")
        right.set_ylim(bottom=0)
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        if axes.lines:
            legend_above(axes)
    return figure


def _series(rounds: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(line["round"], float(line[key])) for line in rounds if line.get(key) is not None]


def _draw_curve(
    axes: Axes, points: Sequence[tuple[int, float]], label: str, colour: str, marker: str, dash: str
) -> None:
    if points:
        x, y = zip(*points, strict=True)
        every = max(1, len(points) // 20)
        axes.plot(
            x,
            y,
            dash,
            color=colour,
            label=label,
            linewidth=1.8,
            marker=marker,
            markersize=4.5,
            markevery=every,
        )


def _learning_words(curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    parts = []
    names = {
        "personal-accuracy": "accuracy after personalisation",
        "test-accuracy": "test accuracy",
        "attack-success-rate": "attack success rate",
    }
    for key, name in names.items():
        if points := curves[key]:
            (first, start), (last, end) = points[0], points[-1]
            parts.append(f"{name} {number(start)} % after round {first}, {number(end)} % after round {last}")
    if points := curves["test-loss"]:
        parts.append(f"test loss from {number(points[0][1], 3)} to {number(points[-1][1], 3)}")
    return (
        f"Learning curve: {'; '.join(parts)}."
        if parts
        else "Learning curve: the clients' training loss by round."
    )


def comparison(audit: Mapping[str, Any], name: str) -> Picture | None:
    """Draw each percentage before, after and retrained on one axis; None if nothing was measured."""
    models = {key: audit.get(key) or {} for key in ("before", "after", "retrain")}
    columns = [c for c in COLUMNS if c.unit == "%" and any(m.get(c.key) is not None for m in models.values())]
    if not columns:
        return None
    gaps = audit.get("gaps") or {}
    words = listed(f"{c.short} {gap(gaps[c.key])}" for c in columns if gaps.get(c.key) is not None)
    caption = "The bar between after and retrained is the gap" + (f", in points: {words}." if words else ".")
    return drawn(lambda sheet: _comparison_figure(sheet, models, columns), name, caption)


def _comparison_figure(
    sheet: Sheet, models: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]
) -> Figure:
    figure = sheet.figure((1.2 if sheet.narrow else 0.9) + 0.36 * len(columns))
    axes = figure.subplots()
    style_axes(axes, "Before, after and retrained", "%")
    axes.set_xlim(-2, 102)
    axes.set_ylim(len(columns) - 0.4, -0.6)
    names = [c.short if sheet.narrow else f"{c.title} ({c.short})" for c in columns]
    axes.set_yticks(range(len(columns)), names, color=INK)
    for row, column in enumerate(columns):
        after, retrain = models["after"].get(column.key), models["retrain"].get(column.key)
        if after is not None and retrain is not None:
            axes.plot([after, retrain], [row, row], color=INK, linewidth=2.2, solid_capstyle="butt", zorder=1)
    for model, (label, style, face, edge, height) in _MARKERS.items():
        values = [models[model].get(column.key) for column in columns]
        x = [np.nan if value is None else float(value) for value in values]
        marker = axes.plot(x, range(len(x)), style, color=face, markersize=7, label=label)[0]
        marker.set(markeredgecolor=edge, markeredgewidth=1.6, zorder=height)
    legend_above(axes)
    return figure


def contribution_map(record: RunRecord, contributions: Contributions) -> Picture:
    """Draw the length of each client's weighted update in each round, and its sum over the rounds."""
    values = np.full((len(contributions.clients), len(contributions.rounds)), np.nan)
    for row, client in enumerate(contributions.clients):
        for column, server_round in enumerate(contributions.rounds):
            values[row, column] = contributions.lengths.get((client, server_round), np.nan)
    totals = np.nansum(values, axis=1)
    caption = _contribution_words(record, contributions, totals)
    return drawn(
        lambda sheet: _contribution_figure(sheet, record, contributions, values), "contributions", caption
    )


def _contribution_figure(
    sheet: Sheet, record: RunRecord, contributions: Contributions, values: Matrix
) -> Figure:
    figure, axes, totals_axes = _map_with_totals(sheet, len(values))
    title = "Length of the client's weighted update" if contributions.averaging else "Length of what was sent"
    title = "Length of the update" if sheet.narrow and contributions.averaging else title
    style_axes(axes, title, "round", "client")
    image = _draw_map(axes, values)
    _write_cells(axes, values, numbers=False)
    _name_rows(axes, record, contributions.clients)
    ticks = [
        int(t)
        for t in MaxNLocator(5 if sheet.narrow else 12, integer=True).tick_values(
            0, len(contributions.rounds) - 1
        )
    ]
    ticks = [t for t in ticks if 0 <= t < len(contributions.rounds)]
    axes.set_xticks(ticks, [str(contributions.rounds[t]) for t in ticks])
    bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.06 if sheet.narrow else 0.03)
    bar.ax.tick_params(labelsize=8, color=GRID, labelcolor=MUTED)
    bar.outline.set_visible(False)
    _draw_totals(totals_axes, np.nansum(values, axis=1), record, contributions.clients)
    return figure


def _contribution_words(record: RunRecord, contributions: Contributions, totals: Matrix) -> str:
    order = np.argsort(-totals, kind="stable")
    most, least = (contributions.clients[int(i)] for i in (order[0], order[-1]))
    did = ("moved the model most", "least") if contributions.averaging else ("sent most by length", "least")
    parts = [
        f"{count(len(totals), 'client')} in {count(len(contributions.rounds), 'round')}: "
        f"over all rounds client {most} {did[0]} and client {least} {did[1]}"
    ]
    everything = totals.sum()
    for rank, row in enumerate(order, start=1):
        client = contributions.clients[int(row)]
        if (marks := record.marks(client)) and everything > 0:
            share = 100.0 * totals[row] / everything
            parts.append(f"client {client} ({marks}) is number {rank} with {number(share)} % of the sum")
    parts.append("an empty cell or a dash: the client's update was not part of that round")
    return "; ".join(parts) + "."


def label_map(record: RunRecord, class_names: Sequence[str]) -> Picture | None:
    """Draw how many examples of each class each client holds; None if the clients did not say."""
    counts = record.label_counts
    if not counts:
        return None
    num_groups = max(len(row) for row in counts.values())
    values = np.array([row + [0] * (num_groups - len(row)) for row in counts.values()], dtype=np.float64)
    names = [class_names[i] if i < len(class_names) else str(i) for i in range(num_groups)]
    caption = _label_words(values, values.sum(axis=1))
    return drawn(lambda sheet: _label_figure(sheet, record, values, names), "labels", caption)


def _label_figure(sheet: Sheet, record: RunRecord, values: Matrix, names: Sequence[str]) -> Figure:
    counts, num_groups = record.label_counts, len(names)
    figure, axes, totals_axes = _map_with_totals(sheet, len(values))
    style_axes(axes, "Examples of each class", "class", "client")
    _draw_map(axes, np.where(values > 0, values, np.nan))
    _name_rows(axes, record, list(counts))
    most = 12 if sheet.narrow else 25
    step = -(-num_groups // most)
    axes.set_xticks(range(0, num_groups, step), [short_label(n) for n in names[::step]])
    if max(map(len, names)) > (2 if sheet.narrow else 4):
        axes.tick_params(axis="x", rotation=40)
    for label in axes.get_xticklabels():
        plain(label)
    if num_groups <= most:
        _write_cells(axes, values, numbers=True)
    _draw_totals(totals_axes, values.sum(axis=1), record, list(counts))
    return figure


def _label_words(values: Matrix, totals: Matrix) -> str:
    held = (values > 0).sum(axis=1)
    classes = str(held.min()) if held.min() == held.max() else f"{held.min()} to {held.max()}"
    sizes = f"{totals.min():,.0f}"
    if totals.min() != totals.max():
        sizes += f" to {totals.max():,.0f}"
    return (
        f"{count(len(values), 'client')} hold {sizes} examples each, {totals.sum():,.0f} in all; "
        f"each sees {classes} of the {count(values.shape[1], 'class')}. An empty cell or a dash: none."
    )


def _map_with_totals(sheet: Sheet, num_rows: int) -> tuple[Figure, Axes, Axes]:
    figure = sheet.figure(1.1 + 0.27 * min(num_rows, _MOST_NAMED))
    axes, totals = figure.subplots(1, 2, width_ratios=[3 if sheet.narrow else 4, 1])
    return figure, axes, totals


def _draw_map(axes: Axes, values: Matrix) -> Any:
    axes.grid(visible=False)
    axes.set_facecolor("none")
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    return axes.imshow(values, _COLOURS, aspect="auto", interpolation="none", vmin=0.0, vmax=top or 1.0)


def _name_rows(axes: Axes, record: RunRecord, clients: Sequence[str]) -> None:
    marks = {row: text for row, client in enumerate(clients) if (text := record.marks(client))}
    rows = range(len(clients)) if len(clients) <= _MOST_NAMED else list(marks)
    names = [_row_name(axes, clients[r], marks.get(r, "")) for r in rows]
    axes.set_yticks(rows, names)
    for row, label in zip(rows, axes.get_yticklabels(), strict=True):
        plain(label)
        if row in marks:
            label.set(color=RED, fontweight="bold")


def _row_name(axes: Axes, client: str, marks: str) -> str:
    """Return a client's name with its marks; on a narrow sheet the caption has them."""
    if is_narrow(axes):
        return short_label(client, 8) + (" ▸" if marks else "")
    return short_label(client) + (f"  {marks} ▸" if marks else "")


def _draw_totals(axes: Axes, totals: Matrix, record: RunRecord, clients: Sequence[str]) -> None:
    style_axes(axes, "Sum")
    colours = [RED if record.marks(client) else BLUE for client in clients]
    axes.barh(range(len(totals)), totals, color=colours, height=0.7)
    axes.set_ylim(len(totals) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", left=False, labelleft=False)
    axes.xaxis.set_major_locator(MaxNLocator(1 if is_narrow(axes) else 3))


def _write_cells(axes: Axes, values: Matrix, *, numbers: bool) -> None:
    """Write a dash into the empty cells and, with `numbers`, the number into the others."""
    if values.size > _MOST_WRITTEN:
        return
    middle = np.nanmax(values, initial=0.0) / 2
    for (row, column), value in np.ndenumerate(values):
        if not value > 0:
            axes.text(column, row, MISSING, ha="center", va="center", fontsize=8, color=MUTED)
        elif numbers:
            colour = "#ffffff" if value > middle else "#1a1f24"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour)

"""The figures of the report: each a function from numbers to a picture with its caption."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from app.report.axes import Axes, Box, Curve, Span, curves_panel, heading, panels
from app.report.headline import Headline
from app.report.heat_map import HeatMap, Matrix, draw_map
from app.report.reading import Contributions, RunRecord
from app.report.svg import BLUE, GREEN, GRID, INK, MUTED, ORANGE, PURPLE, RED, Drawing, Pen, Picture, drawn
from app.report.tables import NumberTable, Row
from app.report.wording import COLUMNS, Column, count, figure, gap, listed, number

_MODELS = {
    "before": ("before", Pen(MUTED, "o", hollow=True, width=0)),
    "after": ("after", Pen(BLUE, "o", width=0)),
    "retrain": ("retrained", Pen(ORANGE, "d", width=0)),
}
"""Label and marker by model, in the order in which they are drawn."""
_RATES = {
    "personal-accuracy": ("after personalisation", Pen(GREEN, "d")),
    "test-accuracy": ("test accuracy", Pen(BLUE, "o")),
    "validation-accuracy": ("validation accuracy", Pen(PURPLE, "v", "--")),
    "attack-success-rate": ("attack success rate", Pen(RED, "s", "--")),
}
_LOSSES = {
    "test-loss": ("test data", Pen(BLUE, "o")),
    "validation-loss": ("validation data", Pen(PURPLE, "v", "--")),
    "train-loss": ("clients' training data", Pen(ORANGE, "^", "--")),
}
Points = list[tuple[float, float]]
_PANEL_HEIGHT = 210.0
_MOST_ROUNDS = 400


def learning_curve(
    rounds: Sequence[Mapping[str, Any]],
    headline: Headline | None = None,
    judged: Mapping[str, Any] | None = None,
) -> Picture | None:
    """Draw the headline, attack success and loss over the rounds; None if no round reports any of them.

    Without a headline, or where it is that, the accuracy on test data is drawn, in percent. `judged` says
    which round was kept, and is marked.
    """
    rates = {key: _series(rounds, key) for key in _RATES}
    losses = {key: _series(rounds, key) for key in _LOSSES}
    kept = _kept(judged)
    if headline is not None and headline.key not in _RATES:
        losses["test-loss"] = losses["test-loss"] or _series(rounds, "client-loss")
        points = _series(rounds, headline.key)
        if points or any(losses.values()):
            words = f"Learning curve: {_course(points, headline)}.{_kept_words(judged)}"
            own = Curve(headline.words, points, Pen(BLUE, "o"), headline.name)
            arrow = "the higher, the better" if headline.higher_is_better else "the lower, the better"
            return _learning(rounds, [own], headline.words, arrow, losses, kept, words)
    if not any(rates.values()) and not any(losses.values()):
        return None
    curves = [Curve(_RATES[key][0], rates[key], _RATES[key][1], "accuracy", " %") for key in _RATES]
    words = _learning_words(rates, losses) + _kept_words(judged)
    return _learning(rounds, curves, "Accuracy on test data", "%", losses, kept, words)


def _kept(judged: Mapping[str, Any] | None) -> tuple[float, str] | None:
    """Return the round to mark, and the words beside it."""
    if not judged:
        return None
    best = judged["round"] == judged["best"]
    return float(judged["round"]), f"kept: round {judged['round']}" + (", the best" if best else "")


def _kept_words(judged: Mapping[str, Any] | None) -> str:
    if not judged:
        return ""
    said = f" The dashed line marks the round whose model is kept, {judged['round']}"
    if judged["best"] and judged["best"] != judged["round"]:
        said += f"; the best by {judged['by']} was {judged['best']}"
    return f"{said}."


def _learning(  # what is drawn, and how it is named
    rounds: Sequence[Mapping[str, Any]],
    curves: Sequence[Curve],
    title: str,
    unit: str,
    losses: Mapping[str, Points],
    kept: tuple[float, str] | None,
    words: str,
) -> Picture:
    of_loss = [Curve(_LOSSES[key][0], losses[key], _LOSSES[key][1], "loss") for key in _LOSSES]
    shown = [(title, list(curves), unit), ("Loss", of_loss, "")]
    shown = [panel for panel in shown if any(curve.points for curve in panel[1])]
    rates = unit == "%"

    def panel(drawing: Drawing, place: int, box: Box) -> float:
        name, lines, of = shown[place]
        span = Span(0.0, 100.0) if rates and of == "%" else None
        return curves_panel(drawing, box, lines, name, y=span, unit=of, marked=kept)

    def draw(drawing: Drawing) -> float:
        ratios = [4, 3][: len(shown)]
        return panels(drawing, ratios, _PANEL_HEIGHT, lambda place, box: panel(drawing, place, box))

    told = [curve for curve in (*curves, *of_loss) if curve.points]
    return drawn(draw, "learning", words, curves_table(told, "Figures by round."))


def curves_table(curves: Sequence[Curve], caption: str) -> NumberTable:
    """Return the points of curves as a table, by round."""
    values = [{int(x): y for x, y in curve.points} for curve in curves]
    rounds = sorted({place for points in values for place in points})
    every = -(-len(rounds) // _MOST_ROUNDS)
    rows = [
        Row(
            str(place),
            tuple(
                figure(curve.name, points.get(place)) for curve, points in zip(curves, values, strict=True)
            ),
        )
        for place in rounds[:: max(every, 1)]
    ]
    said = caption if every <= 1 else f"{caption} One round of {every}."
    return NumberTable(said, "round", tuple(c.label + (c.unit and f",{c.unit}") for c in curves), tuple(rows))


def _course(points: Points, headline: Headline) -> str:
    better = "the higher, the better" if headline.higher_is_better else "the lower, the better"
    if not points:
        return f"{headline.words} ({better}) was measured in no round"
    (first, start), (last, end) = points[0], points[-1]
    numbers = (
        f"{figure(headline.name, start)} after round {first:g}, {figure(headline.name, end)} after {last:g}"
    )
    return f"{headline.words} ({better}) {numbers}"


def _series(rounds: Sequence[Mapping[str, Any]], key: str) -> Points:
    return [(line["round"], float(line[key])) for line in rounds if line.get(key) is not None]


def _learning_words(rates: Mapping[str, Points], losses: Mapping[str, Points]) -> str:
    parts = []
    names = {
        "personal-accuracy": "accuracy after personalisation",
        "test-accuracy": "test accuracy",
        "attack-success-rate": "attack success rate",
    }
    for key, name in names.items():
        if points := rates[key]:
            (first, start), (last, end) = points[0], points[-1]
            parts.append(f"{name} {number(start)} % after round {first}, {number(end)} % after round {last}")
    if points := losses["test-loss"]:
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
    return drawn(lambda drawing: _draw_comparison(drawing, models, columns), name, caption)


def _draw_comparison(
    drawing: Drawing, models: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]
) -> float:
    whole = Box(0.0, 0.0, drawing.width, 0.0)
    entries = [(label, pen) for label, pen in _MODELS.values()]
    top = heading(drawing, whole, "Before, after and retrained, %", entries)
    left = 46.0 if drawing.is_narrow else 208.0
    axes = Axes(
        drawing,
        Box(left, top + 8, drawing.width - left - 16, 30.0 * len(columns)),
        Span(0.0, 100.0),
        Span(0.0, 1.0),
    )
    axes.horizontal()
    for row, column in enumerate(columns):
        y = axes.box.top + 30.0 * (row + 0.5)
        _draw_models(axes, y, column, {model: found.get(column.key) for model, found in models.items()})
    return axes.box.bottom + 24


def _draw_models(axes: Axes, y: float, column: Column, values: Mapping[str, float | None]) -> None:
    drawing = axes.drawing
    name = column.short if drawing.is_narrow else f"{column.title} ({column.short})"
    drawing.text(axes.box.left - 12, y + 4.5, name, anchor="end", look="ink")
    drawing.line((axes.box.left, axes.box.right), (y, y), Pen(GRID, width=1.0))
    after, retrain = values["after"], values["retrain"]
    if after is not None and retrain is not None:
        drawing.line((axes.x(after), axes.x(retrain)), (y, y), Pen(INK, width=2.4))
    for model, (label, pen) in _MODELS.items():
        if (value := values[model]) is not None:
            size = 6.0 if model == "before" else 5.0 if model == "after" else 3.6
            drawing.telling(
                f"{column.title}, {label}: {number(value)} %",
                partial(drawing.mark, axes.x(value), y, pen, size),
            )


def contribution_map(record: RunRecord, contributions: Contributions) -> Picture:
    """Draw the length of each client's weighted update in each round, and its sum over the rounds."""
    values = np.full((len(contributions.clients), len(contributions.rounds)), np.nan)
    for row, client in enumerate(contributions.clients):
        for column, server_round in enumerate(contributions.rounds):
            values[row, column] = contributions.lengths.get((client, server_round), np.nan)
    found = HeatMap(
        "Length of the weighted update" if contributions.averaging else "Length of what was sent",
        values,
        contributions.clients,
        [str(place) for place in contributions.rounds],
        "client",
        "round",
        lambda value: f"{value:.3g}",
        _marked(record, contributions.clients),
        written=False,
    )
    caption = _contribution_words(record, contributions, found.sums)
    return drawn(lambda drawing: draw_map(drawing, found), "contributions", caption, found.table())


def _marked(record: RunRecord, clients: Sequence[str]) -> dict[int, str]:
    return {row: text for row, client in enumerate(clients) if (text := record.marks(client))}


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
    clients = list(counts)
    found = HeatMap(
        "Examples of each class",
        values,
        clients,
        names,
        "client",
        "class",
        lambda value: f"{value:.0f}",
        _marked(record, clients),
    )
    caption = _label_words(values, values.sum(axis=1))
    return drawn(lambda drawing: draw_map(drawing, found), "labels", caption, found.table())


def confusion_map(counts: Sequence[Sequence[float]], class_names: Sequence[str], name: str) -> Picture:
    """Draw how many examples of each class are taken for each class, as ``[true class][predicted class]``."""
    values = np.array(counts, dtype=np.float64)
    names = [class_names[i] if i < len(class_names) else str(i) for i in range(len(values))]
    found = HeatMap(
        "Examples by true and predicted class",
        values,
        names,
        names,
        "true class",
        "predicted class",
        lambda value: f"{value:.0f}",
        totals="",
    )
    return drawn(
        lambda drawing: draw_map(drawing, found), name, _confusion_words(values, names), found.table()
    )


def _confusion_words(values: Matrix, names: Sequence[str]) -> str:
    wrong = values.copy()
    np.fill_diagonal(wrong, 0.0)
    total, mistakes = values.sum(), wrong.sum()
    said = f"{mistakes:,.0f} of {total:,.0f} examples are taken for another class"
    if mistakes:
        row, column = (int(place) for place in np.unravel_index(int(wrong.argmax()), wrong.shape))
        most = int(wrong[row, column])
        said += f"; most often {names[row]} for {names[column]}, {'once' if most == 1 else f'{most:,} times'}"
    return f"{said}. Right answers lie on the diagonal; a dash: none."


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

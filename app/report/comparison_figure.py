"""The figure of a comparison of methods: their five rates beside each other, and disparity against time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from app.report.comparison_tables import OTHER_SEED, RATES, RETRAINED, SHORT, Figures, mean_of, models
from app.report.svg import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    PURPLE,
    RED,
    Picture,
    Sheet,
    drawn,
    is_narrow,
    style_axes,
)
from app.report.wording import count, number, seconds

_COLOURS = (BLUE, RED, GREEN, PURPLE)
_DASHES = ("-", "--", ":")
_MARKERS = "osv^P<X>ph*8"
_LEAST_SPAN = 5.0
"""Points that an axis of rates shows at least, so that smaller differences do not look large."""


@dataclass(frozen=True)
class _Style:
    """How a model is drawn in both plots."""

    colour: str
    dash: str
    marker: str
    width: float


def _styles(names: Sequence[str]) -> dict[str, _Style]:
    fixed = {
        "before": _Style(MUTED, ":", "o", 1.2),
        RETRAINED: _Style(ORANGE, "-", "D", 3.2),
        OTHER_SEED: _Style(ORANGE, ":", "d", 1.2),
    }
    others = [name for name in names if name not in fixed]
    drawn = {
        name: _Style(
            _COLOURS[place % len(_COLOURS)],
            _DASHES[place // len(_COLOURS) % len(_DASHES)],
            _MARKERS[place % len(_MARKERS)],
            1.5,
        )
        for place, name in enumerate(others)
    }
    return {name: (fixed | drawn)[name] for name in names}


def picture(document: Mapping[str, Any], name: str) -> Picture:
    """Draw a comparison, as in ``compare/<request>.json``; `name` is unique on the page."""
    found = models(document)
    styles = _styles(list(found))
    return drawn(lambda sheet: _figure(sheet, found, styles), name, _words(found))


def _figure(sheet: Sheet, found: Mapping[str, Figures], styles: Mapping[str, _Style]) -> Figure:
    figure, (rates, costs, names) = sheet.panels(3.7, [5, 4, 1.9], [3.2, 2.8, 0.2 + 0.18 * len(styles)])
    _draw_rates(rates, found, styles)
    _draw_costs(costs, found, styles)
    _draw_names(names, styles)
    return figure


def _draw_rates(axes: Axes, found: Mapping[str, Figures], styles: Mapping[str, _Style]) -> None:
    """Draw a line per model over parallel axes, one per rate, each with its own scale."""
    keys = [key for key in RATES if any(mean_of(figures, key) is not None for figures in found.values())]
    style_axes(axes, "Rates in %, each on a scale of its own")
    axes.grid(visible=False)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks(range(len(keys)), [SHORT[key] for key in keys], color=INK)
    axes.set_xlim(-0.5, len(keys) - 0.65)
    axes.set_ylim(-0.06, 1.06)
    spans = {key: _span([mean_of(figures, key) for figures in found.values()]) for key in keys}
    for place, key in enumerate(keys):
        axes.plot([place, place], [0, 1], color=GRID, linewidth=1.2, zorder=0)
        _draw_ticks(axes, place, spans[key])
    for model, figures in found.items():
        heights = [_height(mean_of(figures, key), spans[key]) for key in keys]
        _plot(axes, range(len(keys)), heights, styles[model])


def _draw_ticks(axes: Axes, place: int, span: tuple[float, float]) -> None:
    """Give one of the parallel axes ticks with numbers: the ends, and round values between them."""
    low, high = span
    ticks = [t for t in MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low < t < high]
    near = 0.1 * (high - low)
    between = [t for t in ticks if low + near < t < high - near]
    for value in (low, *between, high):
        height = (value - low) / (high - low)
        axes.plot([place - 0.04, place], [height, height], color=MUTED, linewidth=0.8, zorder=0)
        digits = 0 if value == int(value) else 1
        text = axes.text(place - 0.07, height, number(value, digits), fontsize=8, color=MUTED)
        text.set(ha="right", va="center", zorder=6)
        text.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 0.8})  # no line crosses it


def _span(values: Sequence[float | None]) -> tuple[float, float]:
    """Return the ends of a rate's axis: all values, and at least `_LEAST_SPAN` points, within 0 to 100."""
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    if (missing := _LEAST_SPAN - (high - low)) > 0:
        low, high = low - missing / 2, high + missing / 2
    shift = max(0.0, -low) - max(0.0, high - 100.0)
    return float(np.floor(low + shift)), float(np.ceil(high + shift))


def _height(value: float | None, span: tuple[float, float]) -> float:
    return np.nan if value is None else (value - span[0]) / (span[1] - span[0])


def _plot(axes: Axes, x: Sequence[float], y: Sequence[float], style: _Style) -> None:
    line = axes.plot(x, y, style.dash, color=style.colour, marker=style.marker, linewidth=style.width)[0]
    line.set(markersize=6, markeredgecolor=PAPER, markeredgewidth=0.6, zorder=1.0 + style.width)


def _draw_costs(axes: Axes, found: Mapping[str, Figures], styles: Mapping[str, _Style]) -> None:
    """Draw disparity against time, with the standard deviation over the seeds; linear below one point."""
    style_axes(axes, "Disparity against time", "seconds", "points from retrained")
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=1.0, linscale=0.6)
    for model, time, disparity, error in _points(found):
        style = styles[model]
        axes.errorbar(
            [time],
            [disparity],
            yerr=[[min(error, disparity)], [error]] if error else None,
            fmt=style.marker,
            color=style.colour,
            markersize=7,
            markeredgecolor=PAPER,
            markeredgewidth=0.6,
            elinewidth=1.2,
            zorder=1.0 + style.width,
        )
    axes.set_ylim(-0.15, 110.0)
    axes.set_yticks([0, 1, 10, 100])
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(LogLocator(10))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def _points(found: Mapping[str, Figures]) -> Iterator[tuple[str, float, float, float | None]]:
    for model, figures in found.items():
        time, disparity = mean_of(figures, "seconds"), mean_of(figures, "disparity")
        if model != "before" and time and disparity is not None:
            yield model, time, disparity, figures["disparity"].get("std")


def _draw_names(axes: Axes, styles: Mapping[str, _Style]) -> None:
    axes.set_axis_off()
    lines = [Line2D([], [], color=style.colour, marker=style.marker) for style in styles.values()]
    for line, style in zip(lines, styles.values(), strict=True):
        line.set(linestyle=style.dash, linewidth=style.width, markersize=6)
    left = 0.0 if is_narrow(axes) else -0.25
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (left, 1.02), "handlelength": 2.6}
    axes.legend(lines, list(styles), frameon=False, fontsize=8.5, labelcolor=INK, borderpad=0, **place)


def _words(found: Mapping[str, Figures]) -> str:
    points = [point for point in _points(found) if point[0] not in (RETRAINED, OTHER_SEED)]
    if not points:
        return "No method could be measured."
    best = min(points, key=lambda point: point[2])
    fastest = min(points, key=lambda point: point[1])
    retraining = mean_of(found[RETRAINED], "seconds")
    return (
        f"{count(len(points), 'method')}; closest to retrained is {_point(best)}, fastest {_point(fastest)}. "
        f"Retraining took {seconds(retraining)} s. Good is a line that lies on that of retrained. "
        "The scale of the disparity is linear below one point."
    )


def _point(point: tuple[str, float, float, float | None]) -> str:
    model, time, disparity, _ = point
    return f"{model} with a disparity of {number(disparity)} points in {seconds(time)} s"

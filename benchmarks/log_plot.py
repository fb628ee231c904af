"""Curves over a logarithmic axis, as an SVG that stands by itself in the report's colours and shapes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape

from app.report.axes import Axes, Box, Span, heading, panels
from app.report.style import COLOURS, SHAPES
from app.report.svg import GRID, MARKERS, SERIES, WIDTHS, Drawing, Pen, text_width

_GRID_PEN = Pen(GRID, width=1.0)
_HEIGHT = 220.0
_EDGE = 12.0
"""Around the panels, in pixels."""


@dataclass(frozen=True)
class Panel:
    """Curves by their labels, each a number by the place on the axis below; all numbers are positive.

    `decades` says that the upright axis is logarithmic too; else it begins at 0.
    """

    title: str
    across: str
    curves: Mapping[str, Mapping[float, float]]
    decades: bool = True


def plot(shown: Sequence[Panel], description: str) -> str:
    """Return panels beside each other as an SVG; `description` is for those who do not see it."""
    drawing = Drawing(WIDTHS["middle"])
    drawing.height = panels(
        drawing, [1.0] * len(shown), _HEIGHT, lambda i, box: _panel(drawing, box, shown[i])
    )
    shapes = drawing.svg("", "").partition(">")[2]
    place = f"{-_EDGE:g} {-_EDGE:g} {drawing.width + 2 * _EDGE:g} {drawing.height + 2 * _EDGE:g}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" '
        f'aria-label="{escape(description)}" viewBox="{place}">\n<style>{COLOURS}{SHAPES}</style>\n'
        f'<rect class="f-paper" x="{-_EDGE:g}" y="{-_EDGE:g}" width="100%" height="100%"/>\n{shapes}\n'
    )


def _panel(drawing: Drawing, box: Box, panel: Panel) -> float:
    """Draw one panel; return its lower end."""
    looks = zip(panel.curves, SERIES, MARKERS, strict=False)
    pens = {label: Pen(colour, marker) for label, colour, marker in looks}
    top = heading(drawing, box, panel.title, list(pens.items()))
    upright = _upright(panel)
    widest = max(text_width(_written(value)) for value in upright.ticks.values())
    inner = Box(box.left + widest + 12, top + 8, box.width - widest - 24, box.height)
    places = sorted({math.log10(x) for curve in panel.curves.values() for x in curve})
    axes = Axes(drawing, inner, Span.over(places, margin=0.04), upright.span)
    for tick, value in upright.ticks.items():
        drawing.line((inner.left, inner.right), (axes.y(tick), axes.y(tick)), _GRID_PEN)
        drawing.text(inner.left - 7, axes.y(tick) + 4.5, _written(value), anchor="end")
    for place in places:
        drawing.line((axes.x(place), axes.x(place)), (inner.top, inner.bottom), _GRID_PEN)
        drawing.text(axes.x(place), inner.bottom + 17, _written(round(10**place, 6)), anchor="middle")
    drawing.text(inner.left + inner.width / 2, inner.bottom + 35, panel.across, anchor="middle")
    for label, curve in panel.curves.items():
        at = {x: (axes.x(math.log10(x)), axes.y(upright.scaled(y))) for x, y in curve.items()}
        drawing.path(list(at.values()), pens[label])
        for across, point in at.items():
            said = f"{label}, {_written(across)} {panel.across}: {curve[across]:.3g}"
            drawing.telling(said, partial(drawing.mark, *point, pens[label]))
    return inner.bottom + 42


@dataclass(frozen=True)
class _Upright:
    """The upright axis: what it spans, the numbers at its ticks, and where a number belongs."""

    span: Span
    ticks: Mapping[float, float]
    scaled: Callable[[float], float]


def _upright(panel: Panel) -> _Upright:
    values = [y for curve in panel.curves.values() for y in curve.values()]
    if not panel.decades:
        span = Span(0.0, 1.1 * max(values))
        return _Upright(span, {tick: tick for tick in span.ticks()}, float)
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    ticks = {float(power): 10.0**power for power in range(low, high + 1)}
    return _Upright(Span(float(low), float(high)), ticks, math.log10)


def _written(value: float) -> str:
    """Return a number as short as it can be.

    >>> [_written(each) for each in (0.1, 1.0, 10000.0, 4500000.0)]
    ['0.1', '1', '10 k', '4.5 M']
    """
    for least, letter in ((1e6, "M"), (1e4, "k")):
        if value >= least:
            return f"{value / (1e6 if letter == 'M' else 1e3):.3g} {letter}"
    return f"{value:g}"

"""Axes of a drawing: scales with round ticks, a faint grid, curves with values to point at, and legends."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

from app.report.svg import GRID, INK, Drawing, Pen, text_width
from app.report.wording import figure, number

LINE = 20.0
"""Height of a line of text."""
_GRID_PEN = Pen(GRID, width=1.0)
_KEPT_PEN = Pen(INK, dash="--", width=1.2)
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_MOST_MARKS = 60
"""Points of a curve that can be pointed at."""


@dataclass(frozen=True)
class Span:
    """From which number to which an axis goes."""

    low: float
    high: float

    @staticmethod
    def over(values: Iterable[float], *, at_least: float = 0.0, margin: float = 0.05) -> "Span":
        """Return the span of some values, at least `at_least` wide, with a margin; (0, 1) of none."""
        known = [value for value in values if math.isfinite(value)]
        if not known:
            return Span(0.0, 1.0)
        low, high = min(known), max(known)
        missing = max(at_least - (high - low), 0.0) or (1.0 if high == low else 0.0)
        extra = missing / 2 + margin * (high - low)
        return Span(low - extra, high + extra)

    def from_zero(self, values: Iterable[float]) -> "Span":
        """Return the span from 0 up, if all values are positive and go far down towards it."""
        least = min(values, default=0.0)
        return Span(0.0, self.high) if 0 <= least <= 0.5 * self.high else self

    def ticks(self, most: int = 6, *, whole: bool = False) -> list[float]:
        """Return round numbers within the span, at most about `most`.

        >>> Span(0, 100).ticks(), Span(1, 3).ticks(6, whole=True)
        ([0.0, 20.0, 40.0, 60.0, 80.0, 100.0], [1.0, 2.0, 3.0])
        """
        wide = self.high - self.low
        if not wide > 0 or not math.isfinite(wide):
            return [self.low]
        unit = 10.0 ** math.floor(math.log10(wide / max(most - 1, 1)))
        steps = [unit * step for step in _STEPS]
        if whole:
            steps = [step for step in steps if step >= 1 and step == int(step)] or [1.0]
        step = next((s for s in steps if wide / s <= most - 0.5), steps[-1])
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{place * step:.12g}") for place in range(first, last + 1)]


@dataclass(frozen=True)
class Box:
    """A place in a drawing: left, top, width and height, in pixels."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.top + self.height


@dataclass(frozen=True)
class Curve:
    """Points with a label; `name` is the figure's, which decides how its values are written."""

    label: str
    points: Sequence[tuple[float, float]]
    pen: Pen
    name: str = ""
    unit: str = ""

    def told(self, x: float, y: float) -> str:
        """Return a point in words."""
        value = figure(self.name, y) if self.name else number(y, 3)
        return f"{self.label}, round {x:g}: {value}{self.unit}"


@final
class Axes:
    """Two linear scales in a box of a drawing."""

    def __init__(self, drawing: Drawing, box: Box, x: Span, y: Span) -> None:
        self.drawing, self.box, self.x_span, self.y_span = drawing, box, x, y

    def x(self, value: float) -> float:
        """Return where a value lies, in pixels."""
        return self.box.left + self.box.width * _share(value, self.x_span)

    def y(self, value: float) -> float:
        """Return where a value lies, in pixels."""
        return self.box.bottom - self.box.height * _share(value, self.y_span)

    def horizontal(self, *, whole: bool = False, label: str = "") -> None:
        """Draw vertical grid lines with numbers below, and the axis' label under them."""
        drawing, box = self.drawing, self.box
        for tick in self.x_span.ticks(max(3, int(box.width / 70)), whole=whole):
            drawing.line((self.x(tick), self.x(tick)), (box.top, box.bottom), _GRID_PEN)
            drawing.text(self.x(tick), box.bottom + 17, _written(tick), anchor="middle")
        if label:
            drawing.text(box.left + box.width / 2, box.bottom + 35, label, anchor="middle")

    def vertical(self) -> None:
        """Draw horizontal grid lines with numbers at the left."""
        drawing, box = self.drawing, self.box
        for tick in self.y_span.ticks(max(3, int(box.height / 34))):
            drawing.line((box.left, box.right), (self.y(tick), self.y(tick)), _GRID_PEN)
            drawing.text(box.left - 7, self.y(tick) + 4.5, _written(tick), anchor="end")

    def curve(self, curve: Curve) -> None:
        """Draw a line through the points, and a marker that tells its value on some of them."""
        if not curve.points:
            return
        drawing, pen = self.drawing, curve.pen
        drawing.path([(self.x(x), self.y(y)) for x, y in curve.points], pen)
        if not pen.marker:
            return
        every = -(-len(curve.points) // _MOST_MARKS)
        size = 4.0 if len(curve.points) <= _MOST_MARKS / 2 else 2.5
        for x, y in curve.points[:: max(every, 1)]:
            drawing.telling(curve.told(x, y), partial(drawing.mark, self.x(x), self.y(y), pen, size))


def panels(
    drawing: Drawing, ratios: Sequence[float], height: float, draw: Callable[[int, Box], float]
) -> float:
    """Draw panels beside each other, or on a phone below each other; return the height that was used.

    `draw` draws the panel of a number into a box and returns its lower end; `height` is what a panel has for
    its axes, and the widths have these `ratios`.
    """
    gap = 34.0
    if drawing.is_narrow:
        top = 0.0
        for place in range(len(ratios)):
            top = draw(place, Box(0.0, top, drawing.width, height)) + (14.0 if place + 1 < len(ratios) else 0)
        return top
    room = drawing.width - gap * (len(ratios) - 1)
    left, lowest = 0.0, 0.0
    for place, ratio in enumerate(ratios):
        width = room * ratio / sum(ratios)
        lowest = max(lowest, draw(place, Box(left, 0.0, width, height)))
        left += width + gap
    return lowest


def curves_panel(  # noqa: PLR0913  # what it is of, and how it is labelled
    drawing: Drawing,
    box: Box,
    curves: Sequence[Curve],
    title: str,
    *,
    y: Span | None = None,
    unit: str = "",
    marked: tuple[float, str] | None = None,
    legend: Sequence[tuple[str, Pen]] | None = None,
) -> float:
    """Draw curves over rounds with a title and a legend; return the lower end.

    `marked` is a round with words, which gets an upright line; `legend` replaces the curves' labels and pens.
    """
    title = f"{title}, {unit}" if unit else title
    labelled = [(curve.label, curve.pen) for curve in curves if curve.points]
    labelled = labelled if legend is None else list(legend)
    top = heading(drawing, box, title, labelled + ([(marked[1], _KEPT_PEN)] if marked else []))
    values = [value for curve in curves for _, value in curve.points]
    span = y or Span.over(values).from_zero(values)
    widest = max((text_width(_written(tick)) for tick in span.ticks(6)), default=10.0)
    inner = Box(box.left + widest + 12, top + 8, box.width - widest - 24, box.height)
    rounds = [place for curve in curves for place, _ in curve.points] + ([marked[0]] if marked else [])
    axes = Axes(drawing, inner, Span.over(rounds, margin=0.0), span)
    axes.vertical()
    axes.horizontal(whole=True, label="round")
    if marked is not None:
        place = axes.x(marked[0])
        drawing.line((place, place), (inner.top, inner.bottom), _KEPT_PEN)
    for curve in curves:
        axes.curve(curve)
    return inner.bottom + 42


def heading(drawing: Drawing, box: Box, title: str, entries: Sequence[tuple[str, Pen]]) -> float:
    """Write a title with a legend below, in as many lines as it needs; return the lower end."""
    drawing.text(box.left, box.top + 14, title, look="title")
    left, base = box.left, box.top + 14 + LINE
    if not entries:
        return box.top + LINE
    for label, pen in entries:
        width = 34 + text_width(label) + 14
        if left > box.left and left + width > box.right:
            left, base = box.left, base + LINE
        if pen.dash in {"-", "--", ":"} and pen.width:
            drawing.line((left, left + 26), (base - 4.5, base - 4.5), pen)
        if pen.marker:
            drawing.mark(left + 13, base - 4.5, pen)
        drawing.text(left + 34, base, label, look="ink")
        left += width
    return base + 4


def _share(value: float, span: Span) -> float:
    wide = span.high - span.low
    return (value - span.low) / wide if wide else 0.5


def _written(tick: float) -> str:
    """Return a tick's number, without needless digits."""
    text = f"{tick:,.0f}" if abs(tick) >= 1e4 and tick == int(tick) else f"{tick:g}"
    return text.replace("-", "−")

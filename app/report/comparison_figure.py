"""The figure of a comparison of methods: how far each is from retraining, by metric, on one scale.

A row is a method, a panel a metric. The dot is the mean gap to the retrained model over the seeds, the line
its 95 % interval (Student's t); where the gaps lie in two groups, each has a dot. The band is the floor,
which is how far retrainings that differ by their seed alone lie apart. A method whose interval lies in the
band cannot be told from a retraining.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from app.report.axes import LINE, Axes, Box, Span
from app.report.comparison_tables import (
    FLOOR,
    OTHER_SEED,
    RATES,
    RETRAINED,
    SHORT,
    Figures,
    disparity_of,
    mean_of,
    models,
)
from app.report.svg import (
    BLUE,
    GRID,
    INK,
    MUTED,
    ORANGE,
    Drawing,
    Pen,
    Picture,
    drawn,
    short_label,
    text_width,
)
from app.report.tables import NumberTable, Row
from app.report.wording import MISSING, count, gap, listed, number, seconds
from unlearning.student_t import quantile

_ROW = 26.0
_LEAST_REACH = 5.0
"""Points that the scale shows at least on both sides, so that smaller differences do not look large."""
_DISPARITY = "disparity"


@dataclass(frozen=True)
class Gap:
    """How far a model is from the retrained one in a metric, in points: the mean and half its interval.

    Of values that lie in two groups the median stands in place of the mean, without an interval, and `values`
    has them all.
    """

    mean: float
    half: float | None
    values: tuple[float, ...] = ()

    @property
    def words(self) -> str:
        """The gap in words."""
        if self.values:
            return f"{listed(map(gap, self.values))} (in two groups)"
        around = (
            ""
            if self.half is None
            else f" (95 %: {gap(self.mean - self.half)} to {gap(self.mean + self.half)})"
        )
        return f"{gap(self.mean)}{around}"


def half_interval(std: float | None, num_seeds: int) -> float | None:
    """Return half the 95 % interval of a mean over so many seeds; None of fewer than two.

    >>> half_interval(None, 4), half_interval(1.0, 1), round(half_interval(1.0, 4), 3)
    (None, None, 1.591)
    """
    if std is None or num_seeds < 2:
        return None
    return quantile(num_seeds - 1) * std / math.sqrt(num_seeds)


def gaps_of(figures: Figures, num_seeds: int, disparity: str = _DISPARITY) -> dict[str, Gap]:
    """Return a model's gaps to the retrained one by metric, and its disparity; of what was measured.

    `disparity` is the key of the one that counts.
    """
    keys = {key: f"{key}_gap" for key in RATES} | {_DISPARITY: disparity}
    found = {}
    for key, name in keys.items():
        if (mean := mean_of(figures, name)) is not None:
            found[key] = _gap(figures[name], mean, num_seeds)
    return found


def _gap(spread: Mapping[str, Any], mean: float, num_seeds: int) -> Gap:
    if spread.get("listed"):
        return Gap(mean, None, tuple(sorted(value for of in spread["values"] for value in of)))
    low, high = spread.get("low"), spread.get("high")
    half = half_interval(spread.get("std"), num_seeds) if low is None or high is None else (high - low) / 2
    return Gap(mean, half)


def floor_of(document: Mapping[str, Any]) -> dict[str, float]:
    """Return by metric how far retrainings with other seeds are from retraining; empty without any.

    The mean size of a gap is at most the root of its mean square, which is what the band shows.
    """
    other: Figures = document["methods"].get(OTHER_SEED) or {}
    floor = {}
    for key in (*RATES, _DISPARITY):
        name = disparity_of(document) if key == _DISPARITY else f"{key}_gap"
        if (mean := mean_of(other, name)) is not None:
            values = [value for of in other[name].get("values") or () for value in of]
            known = math.hypot(mean, other[name].get("std") or 0.0)
            floor[key] = math.sqrt(fmean(v * v for v in values)) if values else known
    return floor


def picture(document: Mapping[str, Any], name: str) -> Picture:
    """Draw a comparison, as in ``compare/<request>.json``; `name` is unique on the page."""
    num_seeds = len(document["seeds"])
    found = models(document)
    counts = disparity_of(document)
    shown = {
        model: gaps_of(figures, num_seeds, counts) for model, figures in found.items() if model != RETRAINED
    }
    shown = {model: gaps for model, gaps in shown.items() if gaps and model != FLOOR}
    floor = floor_of(document)
    caption = _words(found, num_seeds, floor, counts)
    return drawn(lambda drawing: _draw(drawing, shown, floor), name, caption, _table(shown, floor))


def _draw(drawing: Drawing, shown: Mapping[str, Mapping[str, Gap]], floor: Mapping[str, float]) -> float:
    keys = [key for key in (_DISPARITY, *RATES) if any(key in gaps for gaps in shown.values())]
    reach = _reach(shown, floor)
    drawing.text(0, 14, "Gap to retrained, points, on one scale", look="title")
    top = _legend(drawing, bool(floor))
    names = {model: short_label(model, 16) for model in shown}
    left = max([text_width(name) for name in names.values()], default=0.0) + 14
    if not keys:
        drawing.text(0, top + 16, "Nothing was measured.")
        return top + 30
    if drawing.is_narrow:
        for key in keys:
            width = (drawing.width - left - 10) * _parts(key) / 2
            box = Box(left, top + LINE, width, _ROW * len(shown))
            _panel(drawing, box, key, shown, floor, reach, names)
            top = box.bottom + 34
        return top
    unit = (drawing.width - left - 16 * len(keys)) / sum(map(_parts, keys))
    for place, key in enumerate(keys):
        box = Box(left, top + LINE, unit * _parts(key), _ROW * len(shown))
        _panel(drawing, box, key, shown, floor, reach, names if place == 0 else {})
        left = box.right + 16
    return top + LINE + _ROW * len(shown) + 30


def _parts(key: str) -> int:
    """Return how wide a panel is: a gap goes both ways from 0, the disparity one."""
    return 1 if key == _DISPARITY else 2


def _reach(shown: Mapping[str, Mapping[str, Gap]], floor: Mapping[str, float]) -> float:
    """Return how far the scale goes: to what most methods reach; what lies beyond is written at the edge."""
    sizes = [
        abs(found.mean) + (found.half or 0.0)
        for model, gaps in shown.items()
        if model != "before"
        for found in gaps.values()
    ]
    most = 1.6 * float(np.quantile(sizes, 0.8)) if sizes else 0.0
    needed = min(max([most, 1.2 * max(floor.values(), default=0.0), _LEAST_REACH]), 100.0)
    unit = 10.0 ** math.floor(math.log10(needed))
    return next(step * unit for step in (1.0, 2.0, 3.0, 5.0, 10.0) if step * unit >= needed)


def _legend(drawing: Drawing, has_floor: bool) -> float:
    base = 14 + LINE
    drawing.line((0, 26), (base - 4.5, base - 4.5), Pen(BLUE, width=2.2))
    drawing.mark(13, base - 4.5, Pen(BLUE, "o"), 4.5)
    words = "mean and 95 % interval"
    drawing.text(34, base, words, look="ink")
    left = 34 + text_width(words) + 14
    if has_floor and drawing.is_narrow:
        left, base = 0.0, base + LINE
    if has_floor:
        drawing.rect(left, base - 12, 26, 14, ORANGE, 0.3)
        drawing.text(left + 34, base, "floor: other seeds", look="ink")
    return base + 8


def _panel(  # what is drawn, and where
    drawing: Drawing,
    box: Box,
    key: str,
    shown: Mapping[str, Mapping[str, Gap]],
    floor: Mapping[str, float],
    reach: float,
    names: Mapping[str, str],
) -> None:
    low = 0.0 if key == _DISPARITY else -reach
    axes = Axes(drawing, box, Span(low, reach), Span(0.0, 1.0))
    drawing.text(box.left + box.width / 2, box.top - 6, SHORT.get(key, key), anchor="middle", look="title")
    if key in floor:
        start, end = axes.x(max(low, -floor[key])), axes.x(min(floor[key], reach))

        def band() -> None:
            drawing.rect(start, box.top, end - start, box.height, ORANGE, 0.3)

        drawing.telling(f"{SHORT.get(key, key)}, floor: {number(floor[key])} points", band)
    for tick in (low, 0.0, reach) if low else (0.0, reach):
        pen = Pen(INK, width=1.2) if tick == 0 else Pen(GRID, width=1.0)
        drawing.line((axes.x(tick), axes.x(tick)), (box.top, box.bottom), pen)
        anchor = "end" if tick == reach else "start" if tick == low else "middle"
        drawing.text(axes.x(tick), box.bottom + 17, number(tick, 0), anchor=anchor)
    for place, (model, gaps) in enumerate(shown.items()):
        y = box.top + (place + 0.5) * _ROW
        drawing.line((box.left, box.right), (y, y), Pen(GRID, width=0.7))
        if names:
            drawing.text(box.left - 12, y + 4.5, names[model], anchor="end", look="ink")
        if key in gaps:
            _dot(axes, y, gaps[key], f"{model}, {SHORT.get(key, key)}", MUTED if model == "before" else BLUE)


def _dot(axes: Axes, y: float, found: Gap, what: str, colour: str) -> None:
    drawing, span = axes.drawing, axes.x_span
    half = found.half or 0.0

    def dot() -> None:
        if not span.low <= found.mean <= span.high:
            right = found.mean > span.high
            x = axes.box.right if right else axes.box.left
            words = f"{gap(found.mean)} ▸" if right else f"◂ {gap(found.mean)}"
            drawing.text(x, y + 4.5, words, anchor="end" if right else "start", look="halo")
            return
        ends = (axes.x(max(found.mean - half, span.low)), axes.x(min(found.mean + half, span.high)))
        drawing.line(ends, (y, y), Pen(colour, width=2.4))
        for value in found.values or (found.mean,):
            drawing.mark(axes.x(min(max(value, span.low), span.high)), y, Pen(colour, "o"), 4.5)

    drawing.telling(f"{what}: {found.words} points", dot)


def _table(shown: Mapping[str, Mapping[str, Gap]], floor: Mapping[str, float]) -> NumberTable:
    keys = (_DISPARITY, *RATES)
    rows = [
        Row(model, tuple(gaps[key].words if key in gaps else MISSING for key in keys))
        for model, gaps in shown.items()
    ]
    if floor:
        rows.append(Row("floor", tuple(number(floor.get(key)) for key in keys)))
    columns = tuple(SHORT.get(key, key) for key in keys)
    return NumberTable("Gap to retrained, in points, with its 95 % interval.", "model", columns, tuple(rows))


def _words(found: Mapping[str, Figures], num_seeds: int, floor: Mapping[str, float], counts: str) -> str:
    points = [
        (model, mean_of(figures, "seconds"), mean_of(figures, counts))
        for model, figures in found.items()
        if model not in {"before", RETRAINED, FLOOR}
    ]
    known = [(model, time, far) for model, time, far in points if time and far is not None]
    if not known:
        return "No method could be measured."
    best = min(known, key=lambda point: point[2])
    fastest = min(known, key=lambda point: point[1])
    retraining = mean_of(found[RETRAINED], "seconds")
    said = (
        f"{count(len(known), 'method')}; closest to retrained is {_point(best)}, fastest {_point(fastest)}. "
        f"Retraining took {seconds(retraining)} s. Good is a dot at 0."
    )
    if counts != _DISPARITY:
        said += " The disparity leaves MIA out, as its attacker only guesses."
    if floor:
        said += " Within the band a method cannot be told from retraining with another seed."
    if num_seeds < 2:
        said += " One seed: there are no intervals."
    return said + " A number at an edge lies beyond the scale."


def _point(point: tuple[str, float, float]) -> str:
    model, time, disparity = point
    return f"{model} with a disparity of {number(disparity)} points in {seconds(time)} s"

"""Maps of numbers: a cell per row and column, the darker the larger, with a bar per row for its sum."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from app.report.axes import LINE, Box, Span
from app.report.png import png_uri
from app.report.svg import BLUE, MUTED, RED, Drawing, Pen, short_label, text_width
from app.report.tables import NumberTable, Row
from app.report.wording import MISSING

Matrix = npt.NDArray[np.float64]

_ROW = 24.0
_MOST_NAMED = 30
"""Rows beyond which those of a map grow thinner, not the map higher; only marked ones are named."""
_MOST_CELLS = 500
"""Cells beyond which a map is one picture, without values to point at."""
_MOST_TOLD = 3000
"""Cells beyond which the table behind a map has the sums only."""
_FAINTEST = 0.06
_HEAT_COLOUR = (0x5A, 0xA5, 0xD2)


@dataclass(frozen=True)
class HeatMap:
    """What a map shows.

    Parameters
    ----------
    values
        Shape [rows, columns], at least 0; NaN and 0: an empty cell.
    rows, columns
        Their names.
    first, along
        What rows and columns are, such as ``client`` and ``round``.
    marks
        Words beside the name of a row, by its place.
    written
        Whether the numbers stand in the cells where they fit.
    told
        Returns a cell's value in words.
    totals
        Heading of the bars with the rows' sums; empty: no bars.
    """

    title: str
    values: Matrix
    rows: Sequence[str]
    columns: Sequence[str]
    first: str
    along: str
    told: Callable[[float], str]
    marks: Mapping[int, str] = field(default_factory=dict)
    written: bool = True
    totals: str = "Sum"

    @cached_property
    def sums(self) -> Matrix:
        """The sum of each row."""
        return np.asarray(np.nansum(self.values, axis=1))

    def table(self) -> NumberTable:
        """Return the numbers, or of a large map the sums of the rows."""
        whole = self.values.size <= _MOST_TOLD
        columns = (*(self.columns if whole else ()), *((self.totals,) if self.totals else ()))
        rows = []
        for place, name in enumerate(self.rows):
            cells = [self.told(v) if v > 0 else MISSING for v in self.values[place]] if whole else []
            cells += [self.told(float(self.sums[place]))] if self.totals else []
            rows.append(Row(name, tuple(cells)))
        caption = (
            f"{self.title}, by {self.first} and {self.along}"
            if whole
            else f"{self.title}: sums by {self.first}"
        )
        return NumberTable(f"{caption}.", self.first, columns, tuple(rows))


def draw_map(drawing: Drawing, found: HeatMap) -> float:
    """Draw a map and return the height that it took."""
    num_rows, num_columns = found.values.shape
    length = 8 if drawing.is_narrow else 18
    names = {place: _row_name(drawing, found, place, length) for place in _named(found)}
    left = max([text_width(name) for name in names.values()], default=0.0) + 12
    bars = (84.0 if drawing.is_narrow else 0.16 * drawing.width) if found.totals else 0.0
    height = _ROW * min(num_rows, _MOST_NAMED)
    widest = drawing.width - left - bars - (16 if bars else 2)
    box = Box(left, LINE + 6, min(widest, 64.0 * num_columns) if not bars else widest, height)
    drawing.text(0, 14, found.title, look="title")
    _cells(drawing, box, found)
    for place, name in names.items():
        look = "red" if place in found.marks else "ink"
        y = box.top + (place + 0.5) * height / num_rows + 4.5
        drawing.text(left - 8, y, name, anchor="end", look=look)
    if bars:
        _bars(drawing, Box(box.right + 14, box.top, bars, height), found)
    return _column_names(drawing, box, found)


def _named(found: HeatMap) -> list[int]:
    everything = range(len(found.rows))
    return list(everything) if len(found.rows) <= _MOST_NAMED else sorted(found.marks)


def _row_name(drawing: Drawing, found: HeatMap, place: int, length: int) -> str:
    """Return a row's name with its marks; on a phone the caption has them."""
    mark = found.marks.get(place)
    said = "" if not mark else " ▸" if drawing.is_narrow else f"  {mark} ▸"
    return short_label(found.rows[place], length) + said


def _cells(drawing: Drawing, box: Box, found: HeatMap) -> None:
    values = np.nan_to_num(found.values)
    top = float(values.max(initial=0.0)) or 1.0
    if values.size > _MOST_CELLS:
        opacity = np.where(values > 0, _FAINTEST + (1 - _FAINTEST) * values / top, 0.0)
        pixels = np.empty((*values.shape, 4), np.uint8)  # [rows, columns, 4]
        pixels[..., :3], pixels[..., 3] = _HEAT_COLOUR, np.round(255 * opacity)
        drawing.image((box.left, box.top, box.width, box.height), png_uri(pixels))
        return
    width, height = box.width / values.shape[1], box.height / values.shape[0]
    widest = max((text_width(found.told(float(v))) for v in values.flat), default=0.0)
    written = found.written and widest + 4 <= width and height >= 17
    for (row, column), value in np.ndenumerate(values):
        x, y = box.left + column * width, box.top + row * height
        shown = found.told(float(value)) if value > 0 else MISSING
        words = f"{found.first} {found.rows[row]}, {found.along} {found.columns[column]}: {shown}"

        def cell(x: float = x, y: float = y, value: float = float(value), shown: str = shown) -> None:
            faint = _FAINTEST + (1 - _FAINTEST) * value / top if value > 0 else 0.0
            drawing.rect(x, y, width - 1, height - 1, "heat", faint)
            if written or not value > 0:
                look = "cell" if value > 0 else "muted"
                drawing.text(x + width / 2, y + height / 2 + 4.5, shown, anchor="middle", look=look)

        drawing.telling(words, cell)


def _bars(drawing: Drawing, box: Box, found: HeatMap) -> None:
    sums = found.sums
    top = float(sums.max(initial=0.0)) or 1.0
    drawing.text(box.left, 14, found.totals, look="title")
    step = box.height / len(sums)
    for place, value in enumerate(sums):
        colour = RED if place in found.marks else BLUE

        def bar(place: int = place, value: float = float(value), colour: str = colour) -> None:
            y = box.top + place * step
            drawing.rect(box.left, y + 0.15 * step, box.width * value / top, 0.7 * step, colour)

        drawing.telling(f"{found.first} {found.rows[place]}, sum: {found.told(float(value))}", bar)


def _column_names(drawing: Drawing, box: Box, found: HeatMap) -> float:
    """Name the columns, as many as have room, turned where they are long; return the lower end."""
    num, width = len(found.columns), box.width / len(found.columns)
    names = [short_label(name, 14) for name in found.columns]
    widest = max(map(text_width, names))
    turned = widest + 6 > width and any(len(name) > 4 for name in names)
    step = max(1, int(np.ceil((20.0 if turned else widest + 8) / width)))
    places = range(0, num, step)
    if not turned and step > 1:
        step = max(int(tick) for tick in Span(0, num).ticks(max(2, num // step), whole=True)[:2])
        places = range(0, num, step)
    for place in places:
        x = box.left + (place + 0.5) * width
        if turned:
            drawing.text(x + 4, box.bottom + 14, names[place], anchor="end", turn=-40)
        else:
            drawing.text(x, box.bottom + 17, names[place], anchor="middle")
    low = box.bottom + (20 + 0.65 * widest if turned else 20)
    drawing.text(box.left + box.width / 2, low + 17, found.along, anchor="middle")
    drawing.line((box.left, box.right), (box.bottom + 1, box.bottom + 1), Pen(MUTED, width=0.8))
    return low + 24

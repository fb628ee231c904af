"""Drawings as inline SVG that take their colours and their font from the page.

A drawing is measured in CSS pixels, so that its text has the size that the style sheet says. Every figure is
drawn for three widths, a phone's, a tablet's (and paper's), and a desk's; the style sheet shows the one that
fits. A mark may carry words, which show when it is pointed at, and which the arrow keys go through.

Colours are names of the page's variables: one drawing serves light and dark backgrounds and paper. Those of
series are Okabe and Ito's, "Color Universal Design" (2008), the red a little darker; people with any common
colour blindness can tell them apart, and each series has a marker or dash of its own besides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

from markupsafe import Markup, escape

from app.report.tables import NumberTable
from app.report.wording import printable

INK, MUTED, GRID, PAPER = "ink", "muted", "grid", "paper"
BLUE, ORANGE, RED, GREEN, PURPLE = "blue", "orange", "red", "green", "purple"
SERIES = (BLUE, RED, GREEN, PURPLE, ORANGE, INK)
"""Colours of series, one after the other."""
WIDTHS = {"small": 358, "middle": 736, "large": 1056}
"""Form of a drawing -> its width in CSS pixels: that of the page's text at 390, 800 and 1120 px or more."""
TEXT = 13.0
"""Size of text in CSS pixels, as the style sheet has it."""
MARKERS = "odsv^x"
"""Shapes of markers: circle, diamond, square, triangles, cross."""
DASHES = {"-": "", "--": "6 4", ":": "2 3"}

_LETTER = 0.58 * TEXT
_LABEL_LENGTH = 18


@dataclass(frozen=True)
class Picture:
    """A figure of the report: inline SVG with its text alternative, a caption, and its numbers as a table.

    `name` is unique on the page.
    """

    svg: Markup
    caption: str
    name: str
    table: NumberTable | None = None


@dataclass(frozen=True)
class Pen:
    """How something is drawn: a colour, a marker of `MARKERS`, a dash of `DASHES`, a width in pixels."""

    colour: str
    marker: str = ""
    dash: str = "-"
    width: float = 1.8
    hollow: bool = False


@final
class Drawing:
    """An SVG of a fixed width, to which shapes are added; x goes right and y down, in CSS pixels."""

    def __init__(self, width: float) -> None:
        self.width = width
        self.height = 0.0
        self._parts: list[str] = []

    @property
    def is_narrow(self) -> bool:
        """Whether it is as wide as a phone."""
        return self.width < WIDTHS["middle"]

    def line(self, x: tuple[float, float], y: tuple[float, float], pen: Pen) -> None:
        """Draw a line from (x[0], y[0]) to (x[1], y[1])."""
        self._parts.append(f'<path d="M{_n(x[0])} {_n(y[0])}L{_n(x[1])} {_n(y[1])}" {_stroke(pen)}/>')

    def path(self, points: Sequence[tuple[float, float]], pen: Pen) -> None:
        """Draw a line through points."""
        steps = "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
        self._parts.append(f'<path d="M{steps}" {_stroke(pen)}/>')

    def rect(  # a place, a size, and two looks
        self, x: float, y: float, width: float, height: float, colour: str, opacity: float = 1.0
    ) -> None:
        """Fill a rectangle."""
        size = f'x="{_n(x)}" y="{_n(y)}" width="{_n(max(width, 0))}" height="{_n(max(height, 0))}"'
        faint = "" if opacity == 1.0 else f' fill-opacity="{_n(opacity)}"'
        self._parts.append(f'<rect {size} class="f-{colour}"{faint}/>')

    def mark(self, x: float, y: float, pen: Pen, size: float = 4.0) -> None:
        """Draw a marker."""
        fill = "f-paper" if pen.hollow else f"f-{pen.colour}"
        edge = f's-{pen.colour}" stroke-width="1.6' if pen.hollow or pen.marker == "x" else "s-paper"
        if pen.marker == "o":
            self._parts.append(f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(size)}" class="{fill} {edge}"/>')
        else:
            self._parts.append(f'<path d="{_outline(pen.marker, x, y, size)}" class="{fill} {edge}"/>')

    def text(  # a place and three looks
        self, x: float, y: float, words: str, *, anchor: str = "start", look: str = "muted", turn: float = 0
    ) -> None:
        """Write words whose base line is at `y`; `look` is a class of the style sheet, without its ``t-``."""
        turned = f' transform="rotate({_n(turn)} {_n(x)} {_n(y)})"' if turn else ""
        place = "" if anchor == "start" else f' text-anchor="{anchor}"'
        content = escape(printable(words))
        self._parts.append(f'<text x="{_n(x)}" y="{_n(y)}" class="t-{look}"{place}{turned}>{content}</text>')

    def image(self, box: tuple[float, float, float, float], source: str) -> None:
        """Place a picture, a data URI, in a box (x, y, width, height)."""
        x, y, width, height = map(_n, box)
        self._parts.append(
            f'<image x="{x}" y="{y}" width="{width}" height="{height}" preserveAspectRatio="none" '
            f'class="pixels" href="{escape(source)}"/>'
        )

    def telling(self, words: str, draw: Callable[[], None]) -> None:
        """Have what `draw` draws show `words` when it is pointed at."""
        self._parts.append(f'<g class="m"><title>{escape(printable(words))}</title>')
        draw()
        self._parts.append("</g>")

    def svg(self, form: str, description: str) -> str:
        """Return the drawing; `form` is its class besides ``chart``, `description` the text alternative."""
        width, height = _n(self.width), _n(self.height)
        return (
            f'<svg class="chart {form}" role="img" aria-label="{escape(printable(description))}" '
            f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">{"".join(self._parts)}</svg>'
        )


def drawn(
    draw: Callable[[Drawing], float], name: str, caption: str, table: NumberTable | None = None
) -> Picture:
    """Return a figure with its caption, once for each width.

    `draw` draws on an empty drawing and returns the height that it used; `name` is unique on the page; the
    caption is the text alternative.
    """
    forms = []
    for form, width in WIDTHS.items():
        drawing = Drawing(width)
        drawing.height = draw(drawing)
        forms.append(drawing.svg(form, caption))
    if table is not None and not table.caption:
        table = replace(table, caption=caption)
    return Picture(Markup("".join(forms)), caption, name, table)  # every text in it was escaped


def text_width(words: str) -> float:
    """Return about how wide words are."""
    return _LETTER * len(words)


def short_label(name: str, length: int = _LABEL_LENGTH) -> str:
    """Return a name cut to `length` characters, to fit beside an axis.

    >>> short_label("hospital-of-the-holy-spirit")
    'hospital-of-the-h…'
    """
    shown = printable(name)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def _stroke(pen: Pen) -> str:
    dash = f' stroke-dasharray="{DASHES[pen.dash]}"' if DASHES[pen.dash] else ""
    return f'class="l s-{pen.colour}" stroke-width="{_n(pen.width)}"{dash}'


def _outline(marker: str, x: float, y: float, size: float) -> str:
    corners = {
        "s": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "d": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        "^": ((0, -1.2), (1.15, 0.9), (-1.15, 0.9)),
        "v": ((0, 1.2), (1.15, -0.9), (-1.15, -0.9)),
    }
    if marker == "x":
        return "".join(
            f"M{_n(x - a * size)} {_n(y - size)}L{_n(x + a * size)} {_n(y + size)}" for a in (1, -1)
        )
    return "M" + "L".join(f"{_n(x + a * size)} {_n(y + b * size)}" for a, b in corners[marker]) + "Z"


def _n(value: float) -> str:
    """Return a number with at most two digits behind the point."""
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")

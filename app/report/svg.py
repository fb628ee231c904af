"""From a matplotlib figure to inline SVG that takes its colours and its font from the page.

Figures are drawn with the object-oriented API: no window, no pyplot, no state shared between threads. A
figure names a colour by a token below; in the SVG the token becomes a CSS variable, so that one picture
serves light and dark backgrounds and paper. The series colours are those of Okabe and Ito, "Color Universal
Design" (2008), the red a little darker; people with any common colour blindness can tell them apart, and each
series has a marker or dash of its own besides.

Every figure is drawn twice, on a `Sheet` as wide as a desk's page and on one as wide as a phone's, with its
panels below each other; the style sheet shows the one that fits, so that text keeps its size.
"""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from app.report.wording import printable

INK, MUTED, GRID, PAPER = "#010101", "#010102", "#010103", "#010104"
BLUE, ORANGE, RED = "#010105", "#010106", "#010107"
GREEN, PURPLE = "#010108", "#010109"

_VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper",
    BLUE: "--blue", ORANGE: "--orange", RED: "--red", GREEN: "--green", PURPLE: "--purple",
}  # fmt: skip
_WIDTH = 10.4  # inches; at 72 points to the inch and the page's width, a point is about 1.4 px
_NARROW_WIDTH = 3.6  # inches; on a phone of 360 px, a point is about 1.3 px
_LABEL_LENGTH = 18


@dataclass(frozen=True)
class Picture:
    """A figure of the report: inline SVG with its text alternative, and a caption."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Sheet:
    """What a figure is drawn on: as wide as a phone, or as the page on a desk."""

    narrow: bool

    def figure(self, height: float) -> Figure:
        """Return an empty figure, transparent, `height` inches high."""
        layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
        width = _NARROW_WIDTH if self.narrow else _WIDTH
        return Figure(figsize=(width, height), layout=layout, facecolor="none")

    def panels(
        self, height: float, ratios: Sequence[float], heights: Sequence[float] | None = None
    ) -> tuple[Figure, list[Axes]]:
        """Return a figure with panels beside each other, or on a narrow sheet below each other.

        Beside each other, the figure is `height` inches high and the panels' widths have these `ratios`;
        below each other, the panels have these `heights` in inches; None: `height` each.
        """
        if not self.narrow:
            figure = self.figure(height)
            shape = figure.subplots(1, len(ratios), width_ratios=list(ratios), squeeze=False)
            return figure, list(shape[0])
        each = list(heights or [height] * len(ratios))
        figure = self.figure(sum(each))
        return figure, list(figure.subplots(len(each), 1, height_ratios=each, squeeze=False)[:, 0])


def drawn(draw: Callable[[Sheet], Figure], name: str, caption: str) -> Picture:
    """Return a figure with its caption, once for desks and paper and once for phones.

    `draw` makes the figure on a sheet; `name` is unique on the page; the caption is its text alternative.
    """
    wide = to_svg(draw(Sheet(narrow=False)), name, caption)
    narrow = to_svg(draw(Sheet(narrow=True)), f"{name}-narrow", caption, "narrow")
    return Picture(wide + narrow, caption)


def style_axes(axes: Axes, title: str, x_label: str = "", y_label: str = "") -> None:
    """Give axes the report's look: a title at the left, a thin frame at the left and bottom, a faint grid."""
    axes.set_facecolor("none")
    axes.set_title(title, loc="left", fontsize=9.5, fontweight="bold", color=INK)
    axes.set_xlabel(x_label, fontsize=8.5, color=MUTED)
    axes.set_ylabel(y_label, fontsize=8.5, color=MUTED)
    axes.tick_params(labelsize=8.5, color=GRID, labelcolor=MUTED, length=3)
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)


def legend_above(axes: Axes) -> None:
    """Put the legend where no line crosses it: right of the title, or below it on a narrow sheet."""
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 3, "borderpad": 0.2}
    if is_narrow(axes):
        axes.set_title(axes.get_title("left"), loc="left", fontsize=9.5, fontweight="bold", color=INK, pad=22)
        place |= {
            "loc": "lower left",
            "bbox_to_anchor": (-0.02, 1),
            "columnspacing": 1.0,
            "handlelength": 1.4,
        }
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, **place)


def is_narrow(axes: Axes) -> bool:
    """Say whether axes are on a narrow sheet."""
    figure = axes.get_figure(root=True)
    return figure is not None and figure.get_figwidth() <= _NARROW_WIDTH


def name_clients(axes: Axes, clients: Sequence[str]) -> None:
    """Name clients along the lower axis, as many of them as have room."""
    room, length = (9, 5) if is_narrow(axes) else (20, 8)
    step = -(-len(clients) // room)
    axes.set_xticks(range(0, len(clients), step), [short_label(str(i), length) for i in clients[::step]])
    for label in axes.get_xticklabels():
        plain(label)


def plain(text: Text) -> Text:
    """Have a text shown as it is: matplotlib may take a client's name for a formula."""
    text.set_parse_math(False)
    return text


def short_label(name: str, length: int = _LABEL_LENGTH) -> str:
    """Return a name cut to `length` characters, to fit beside an axis.

    >>> short_label("hospital-of-the-holy-spirit")
    'hospital-of-the-h…'
    """
    shown = printable(name)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def to_svg(figure: Figure, name: str, description: str, form: str = "wide") -> Markup:
    """Return a figure of a `Sheet` as inline SVG.

    `name` is unique on the page and begins the ids inside the picture; `description` is the text alternative;
    `form` is the class on the page besides ``chart``: ``wide`` or ``narrow``.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        # the browser draws the texts with its own fonts, which are not limited to those that matplotlib knows
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Markup(_embedded(buffer.getvalue(), name, description, form))  # matplotlib has escaped the texts


def _embedded(document: str, name: str, description: str, form: str) -> str:
    """Make an SVG document a part of the page: no head, unique ids, the page's colours and font."""
    view_box = document.partition('viewBox="')[2].partition('"')[0]
    body = document.partition("<svg ")[2].partition(">")[2]
    body = re.sub(r"<metadata>.*?</metadata>|<style type=\"text/css\">.*?</style>", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", body)
    body = re.sub(r'font-family: [^;"]+', "font-family: var(--font)", body)
    for token, variable in _VARIABLES.items():
        body = body.replace(token, f"var({variable})")
    head = f'<svg class="chart {form}" role="img" aria-label="{escape(description)}" viewBox="{view_box}">'
    return head + body

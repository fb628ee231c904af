"""From a matplotlib figure to inline SVG that takes its colours and its font from the page.

Figures are drawn with the object-oriented API: no window, no pyplot, no state shared between threads. A
figure names a colour by a token below; in the SVG the token becomes a CSS variable, so that one picture
serves light and dark backgrounds and paper. The series colours are those of Okabe and Ito, "Color Universal
Design" (2008), the red a little darker; people with any common colour blindness can tell them apart, and each
series has a marker or dash of its own besides.
"""

import io
import re
import warnings
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from app.wording import printable

INK, MUTED, GRID, PAPER = "#010101", "#010102", "#010103", "#010104"
BLUE, ORANGE, RED = "#010105", "#010106", "#010107"
GREEN, PURPLE = "#010108", "#010109"

_VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper",
    BLUE: "--blue", ORANGE: "--orange", RED: "--red", GREEN: "--green", PURPLE: "--purple",
}  # fmt: skip
_WIDTH = 10.4  # inches; at 72 points to the inch and the page's width, a point is about 1.4 px
_LABEL_LENGTH = 18


@dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Parameters
    ----------
    svg
        Inline SVG with its text alternative.
    caption
        What is to be seen, for everybody.
    """

    svg: Markup
    caption: str


def new_figure(height: float) -> Figure:
    """Return an empty figure as wide as the page, transparent, `height` inches high."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    return Figure(figsize=(_WIDTH, height), layout=layout, facecolor="none")


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
    """Put the legend where no line can cross it: on the right of the title."""
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 3, "borderpad": 0.2}
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, **place)


def plain(text: Text) -> Text:
    """Make a text stand for itself: a client's name may hold what matplotlib takes for a formula."""
    text.set_parse_math(False)
    return text


def short_label(name: str) -> str:
    """Return a name that fits beside an axis.

    Examples
    --------
    >>> short_label("hospital-of-the-holy-spirit")
    'hospital-of-the-h…'
    """
    shown = printable(name)
    return shown if len(shown) <= _LABEL_LENGTH else shown[: _LABEL_LENGTH - 1] + "…"


def to_svg(figure: Figure, name: str, description: str) -> Markup:
    """Return a figure as inline SVG.

    Parameters
    ----------
    figure
        A figure from `new_figure`.
    name
        Unique on the page; the ids inside the picture begin with it.
    description
        The text alternative.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        # the browser draws the texts with its own fonts, which are not limited to those that matplotlib knows
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Markup(_embedded(buffer.getvalue(), name, description))  # matplotlib has escaped the texts


def _embedded(document: str, name: str, description: str) -> str:
    """Make an SVG document a part of the page: no head, unique ids, the page's colours and font."""
    view_box = document.partition('viewBox="')[2].partition('"')[0]
    body = document.partition("<svg ")[2].partition(">")[2]
    body = re.sub(r"<metadata>.*?</metadata>|<style type=\"text/css\">.*?</style>", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", body)
    body = re.sub(r'font-family: [^;"]+', "font-family: var(--font)", body)
    for token, variable in _VARIABLES.items():
        body = body.replace(token, f"var({variable})")
    head = f'<svg class="chart" role="img" aria-label="{escape(description)}" viewBox="{view_box}">'
    return head + body

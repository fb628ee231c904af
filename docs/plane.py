"""Draws paths of models with two weights as an SVG that reads on a phone, by day and by night."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from math import hypot

from docs.drawing import shaded

Point = Sequence[float]
"""Both weights of a model: what the clients share, and what the leaving client left."""
_WIDTH, _HEIGHT, _EDGE, _RIGHT, _HEAD = 380, 250, 48, 84, 7
START = (0.0, 0.0)
_STYLE = """
text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; stroke-width: 3px; paint-order: stroke }
.line { fill: none; stroke-width: 1.6px } .axis { stroke-width: 1px } .method.line { stroke-width: 2.2px }
.pale.line, .target.line { stroke-dasharray: 4 3 } .ring { stroke-width: 2px }
.bold { font-weight: 600 }
"""
_INKS = {
    "axis": ("#8b949e", "#7d8590"),
    "pale": ("#6e7781", "#9aa4ae"),
    "trained": ("#0b5fc4", "#7ab7ff"),
    "target": ("#14713a", "#63d283"),
    "method": ("#9a4d00", "#f0a35e"),
}
"""What is drawn -> its ink by day and by night."""


@dataclass
class Picture:
    """A plane of two weights on which paths, points and words are drawn.

    Parameters
    ----------
    points
        All that must be seen of the plane.
    label
        What the picture shows, for those who do not see it.
    """

    points: Iterable[Point]
    label: str
    across: str = "what all clients share"
    up: str = "what client 3 left"
    drawn: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        xs, ys = zip(*[*self.points, START], strict=True)
        self._low = (min(xs), min(ys))
        self._span = (max(xs) - min(xs), max(ys) - min(ys))
        (left, zero), (right, top) = self.at((min(xs), 0.0)), self.at((max(xs), max(ys)))
        self._axis((left - 14, zero), (right + 14, zero))
        self._axis((self.at(START)[0], self.at(self._low)[1] + 12), (self.at(START)[0], top - 14))
        corner = f'x="{_WIDTH - 6}" y="{_HEIGHT - 8}" text-anchor="end"'
        self.drawn.append(f'<text class="pale" {corner}>{escape(self.across)} →</text>')
        self.drawn.append(f'<text class="pale" x="8" y="18">↑ {escape(self.up)}</text>')

    def at(self, point: Point) -> tuple[float, float]:
        """Return where a point of the plane lies in the picture."""
        share = [(value - low) / span for value, low, span in zip(point, self._low, self._span, strict=True)]
        return _EDGE + share[0] * (_WIDTH - _EDGE - _RIGHT), _HEIGHT - _EDGE - share[1] * (
            _HEIGHT - 2 * _EDGE
        )

    def path(self, points: Sequence[Point], kind: str, *, arrow: bool = True) -> None:
        """Draw a path through models, with a dot at each between its ends and an arrow at its end."""
        places = [self.at(point) for point in points]
        for point in points[1:-1]:
            self.dot(point, kind)
        ends = _shortened(places) if arrow else places
        steps = " L".join(f"{x:.1f} {y:.1f}" for x, y in ends)
        self.drawn.append(f'<path class="{kind} line" d="M{steps}"/>')
        if arrow:
            self.drawn.append(_arrow(places[-2], places[-1], kind))

    def point(self, point: Point, kind: str, words: str, side: str) -> None:
        """Draw a model, and beside it its name."""
        self.dot(point, kind, 4.5)
        self.words(self.at(point), kind, words, side)

    def dot(self, point: Point, kind: str, radius: float = 2.6) -> None:
        """Draw a model without a name."""
        x, y = self.at(point)
        self.drawn.append(f'<circle class="{kind} dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>')

    def ring(self, point: Point, words: str, side: str) -> None:
        """Draw the aim of all methods."""
        x, y = self.at(point)
        self.drawn.append(f'<circle class="target ring" cx="{x:.1f}" cy="{y:.1f}" r="9"/>')
        self.words((x, y), "target", words, side)

    def words(self, place: tuple[float, float], kind: str, words: str, side: str) -> None:
        """Write beside a place: above, below, left or right of it."""
        dx, dy, anchor = _SIDES[side]
        x, y = place[0] + dx, place[1] + dy
        self.drawn.append(
            f'<text class="{kind} bold" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def svg(self) -> str:
        """Return the picture."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(self.label)}" '
            f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}">'
        )
        paper = f'<rect class="paper" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>'
        style = shaded(_STYLE, *(_shades(*each) for each in ((0, "#ffffff"), (1, "#0d1117"))))
        return "\n".join([head, f"<style>{style}</style>", paper, *self.drawn, "</svg>\n"])

    def _axis(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        x, y = start
        self.drawn.append(f'<path class="axis line" d="M{x:.1f} {y:.1f} L{end[0]:.1f} {end[1]:.1f}"/>')
        self.drawn.append(_arrow(start, end, "axis"))


_SIDES = {
    "above": (0, -14, "middle"),
    "below": (0, 24, "middle"),
    "left": (-13, 4, "end"),
    "right": (13, 4, "start"),
}
"""How far from a place words are written, and which end of them is there."""


def _shades(column: int, paper: str) -> str:
    inks = ((kind, each[column]) for kind, each in _INKS.items())
    rules = (
        f".{kind}.line, .{kind}.ring {{ stroke: {ink} }} .{kind} {{ fill: {ink} }}" for kind, ink in inks
    )
    papers = f".paper {{ fill: {paper} }} text {{ stroke: {paper} }}"
    return f"{papers} {' '.join(rules)} .line, .ring {{ fill: none }}\n"


def _shortened(places: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return a path that ends where its arrow's head begins."""
    (x, y), (to, end) = places[-2:]
    length = hypot(to - x, end - y) or 1.0
    keep = max(0.0, length - _HEAD) / length
    return [*places[:-1], (x + keep * (to - x), y + keep * (end - y))]


def _arrow(start: tuple[float, float], end: tuple[float, float], kind: str) -> str:
    """Return the head of an arrow whose tip is at `end`."""
    length = hypot(end[0] - start[0], end[1] - start[1]) or 1.0
    x, y = ((b - a) / length for a, b in zip(start, end, strict=True))
    back = (end[0] - _HEAD * x, end[1] - _HEAD * y)
    corners = [end, (back[0] - 4 * y, back[1] + 4 * x), (back[0] + 4 * y, back[1] - 4 * x)]
    return f'<path class="{kind} head" d="M{" L".join(f"{a:.1f} {b:.1f}" for a, b in corners)} z"/>'

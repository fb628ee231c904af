"""Draws rooms on floors, and arrows between them, as an SVG that reads on a phone, by day and by night."""

from collections import defaultdict
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WINGS = {
    "app": ("#0b5fc4", "#e4edfa", "#7ab7ff", "#13233b"),
    "unlearning": ("#9a4d00", "#fbeedd", "#f0a35e", "#33220f"),
    "strategies": ("#14713a", "#e2f3e6", "#63d283", "#102c19"),
}
"""Package -> its ink and its wall, by day and by night; the highest first."""
STROKES = ((15, 3.2), (5, 1.9), (1, 0.9))
"""From how many imports on an arrow is how wide: coarse, so that few changes of the sources redraw it."""
_WIDTH, _BOX, _FLOOR, _WING, _LANE, _HEAD = 400, 38, 66, 34, 10, 7
"""Of the picture, a box, a floor, a wing's name, the way between two lines, an arrow's head; in SVG units."""
_BOLD, _PLAIN = 7.4, 6.6
"""How wide a letter is on average in a wide font."""
_STYLE = """
text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; text-anchor: middle }
.title, .wing { font-weight: 600 } .line { fill: none }
.wing { text-anchor: start; stroke-width: 4px; paint-order: stroke }
"""
_SHADES = """
text {{ fill: {0} }} .what {{ fill: {1} }} .paper, .room {{ fill: {2} }}
.wrong .line {{ stroke: {3} }} .wrong .head {{ fill: {3} }}
"""
_INKS = """
.{0} .line, .{0} .room {{ stroke: {1} }} .{0} .head, .{0}.wing {{ fill: {1} }}
.{0}.wall {{ fill: {2} }} .{0}.wing {{ stroke: {2} }}
"""


@dataclass(frozen=True)
class Room:
    """One box: its wing, floor, two lines and place, and the modules or packages that lie in it."""

    wing: str
    floor: int
    title: str
    what: str
    left: float
    width: float
    parts: tuple[str, ...]

    @property
    def top(self) -> int:
        """Where the box begins, from above."""
        return self.floor * _FLOOR + (list(WINGS).index(self.wing) + 1) * _WING

    @property
    def middle(self) -> float:
        """Where the middle of the box is, from the left."""
        return self.left + self.width / 2


Door = tuple[Room, Room]
"""The first room imports the second."""


def furnished(floor: int, written: list[tuple[str, str, str, tuple[str, ...]]]) -> list[Room]:
    """Return the rooms of a floor, spread evenly: each is given by wing, title, what it is, and parts."""
    widths = [10 + max(_BOLD * len(title), _PLAIN * len(what)) for _, title, what, _ in written]
    gap = (_WIDTH - sum(widths)) / (len(widths) + 1)
    return [
        Room(wing, floor, title, what, gap * (place + 1) + sum(widths[:place]), widths[place], parts)
        for place, (wing, title, what, parts) in enumerate(written)
    ]


def picture(plan: list[Room], doors: dict[Door, int]) -> str:
    """Return the SVG of rooms, and of doors with their numbers of imports; what does not lead down is red."""
    height = plan[-1].top + _BOX + 10
    strokes = {door: next(width for least, width in STROKES if n >= least) for door, n in doors.items()}
    down = _lines(plan, [(a, b) for a, b in doors if a.floor < b.floor])
    tops = {wing: [room.top for room in plan if room.wing == wing] for wing in WINGS}
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="Which room imports which" '
        f'width="{1.4 * _WIDTH:.0f}" height="{1.4 * height:.0f}" viewBox="0 0 {_WIDTH} {height}">',
        f"<style>{_style()}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{height}"/>',
        *(_wall(wing, min(each), max(each)) for wing, each in tops.items()),
        *(_arrow(door, line, strokes[door]) for door, line in down.items()),
        *(
            f'<text class="{wing} wing" x="9" y="{min(each) - 17}">{wing}/</text>'
            for wing, each in tops.items()
        ),
        *map(_box, plan),
        *(_wrong(door, strokes[door]) for door in doors if door not in down),
    ]
    return "\n".join([*drawn, "</svg>\n"])


def _style() -> str:
    day = _SHADES.format("#1f2328", "#4b535c", "#ffffff", "#c1121f")
    night = _SHADES.format("#e6edf3", "#b3bcc6", "#0d1117", "#ff6b63")
    day += "".join(_INKS.format(wing, ink, wall) for wing, (ink, wall, _, _) in WINGS.items())
    night += "".join(_INKS.format(wing, ink, wall) for wing, (_, _, ink, wall) in WINGS.items())
    return shaded(_STYLE, day, night)


def shaded(style: str, day: str, night: str) -> str:
    """Return a style sheet with rules for those who like it light, and for those who like it dark."""
    return f"{style}{day}@media (prefers-color-scheme: dark) {{{night}}}\n"


def _wall(wing: str, first: int, last: int) -> str:
    size = f'width="{_WIDTH - 4}" height="{last - first + _BOX + _WING + 4}"'
    return f'<rect class="{wing} wall" x="2" y="{first - _WING + 2}" {size} rx="6"/>'


def _box(room: Room) -> str:
    return (
        f'<g class="{room.wing}"><rect class="room" x="{room.left:.1f}" y="{room.top}" '
        f'width="{room.width:.1f}" height="{_BOX}" rx="4"/>'
        f'<text class="title" x="{room.middle:.1f}" y="{room.top + 16}">{escape(room.title)}</text>'
        f'<text class="what" x="{room.middle:.1f}" y="{room.top + 31}">{escape(room.what)}</text></g>'
    )


def _arrow(door: Door, line: list[tuple[float, int]], width: float) -> str:
    """Return a line from the foot of one box, past those on the floors between, to the top of the other."""
    x, end = line[-1]
    foot = line[0][1] + _BOX
    path = f"M{line[0][0]:.1f} {foot}"
    for (before, _), (after, top) in pairwise(line):
        tip = top - _HEAD
        half = (foot + tip) / 2
        path += f" C{before:.1f} {half} {after:.1f} {half} {after:.1f} {tip}"
        foot = top + _BOX
        path += f" V{foot}" if top < end else ""
    return (
        f'<g class="{door[0].wing}"><path class="line" stroke-width="{width}" d="{path}"/>'
        f'<path class="head" d="M{x:.1f} {end} l-4.5 -{_HEAD} h9 z"/></g>'
    )


def _wrong(door: Door, width: float) -> str:
    """Return a straight line with a dot at its end, which lies over everything else."""
    (x, y), (to, end) = ((room.middle, room.top) for room in door)
    return (
        f'<g class="wrong"><path class="line" stroke-width="{width}" d="M{x:.1f} {y} L{to:.1f} {end}"/>'
        f'<circle class="head" cx="{to:.1f}" cy="{end}" r="5"/></g>'
    )


def _lines(plan: list[Room], doors: list[Door]) -> dict[Door, list[tuple[float, int]]]:
    """Return where each arrow begins, passes the floors between, and ends; each place with the floor's top.

    The longest choose first, and go straight down where they can.
    """
    found: dict[Door, list[float]] = {}
    taken: set[tuple[int, int]] = set()
    for a, b in sorted(doors, key=lambda door: door[0].floor - door[1].floor):
        passed = range(a.floor + 1, b.floor)
        free = {floor: {x for x in _clear(plan, floor) if (floor, x) not in taken} for floor in passed}
        straight = set(range(_WIDTH)).intersection(*free.values())
        xs = [_nearest(straight or free[floor] or {_LANE // 2}, a, b) for floor in passed]
        taken |= set(zip(passed, xs, strict=True))
        found[a, b] = [a.middle, *xs, b.middle]
    _spread(found, 0, 1)
    _spread(found, -1, -2)
    tops = {room.floor: room.top for room in plan}
    return {
        door: [(x, tops[door[0].floor + step]) for step, x in enumerate(xs)] for door, xs in found.items()
    }


def _clear(plan: list[Room], floor: int) -> list[int]:
    """Return where a line can pass a floor without touching a box."""
    boxes = [(room.left - 4, room.left + room.width + 4) for room in plan if room.floor == floor]
    return [x for x in range(_LANE, _WIDTH, _LANE) if not any(low < x < high for low, high in boxes)]


def _nearest(free: set[int], a: Room, b: Room) -> int:
    return min(sorted(free), key=lambda x: abs(x - a.middle) + abs(x - b.middle))


def _spread(found: dict[Door, list[float]], end: int, toward: int) -> None:
    """Let the arrows that meet at a box meet it side by side, in the order in which they come."""
    meeting: dict[Room, list[Door]] = defaultdict(list)
    for door in sorted(found, key=lambda door: found[door][toward]):
        meeting[door[end]].append(door)
    for room, each in meeting.items():
        for place, door in enumerate(each, 1):
            found[door][end] = room.left + room.width * place / (len(each) + 1)

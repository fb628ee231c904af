"""Dots by client: a column per client, with a marker for each of its numbers."""

from collections.abc import Mapping, Sequence

from app.report.axes import Axes, Box, Span, heading
from app.report.svg import Drawing, Pen, short_label, text_width
from app.report.wording import number


def dots_panel(  # noqa: PLR0913  # what it is of, and how it is labelled
    drawing: Drawing,
    box: Box,
    series: Sequence[tuple[str, Mapping[str, float], Pen]],
    clients: Sequence[str],
    title: str,
    *,
    y: Span,
    unit: str = "",
    bars: bool = False,
    line: tuple[float, str, Pen] | None = None,
) -> float:
    """Draw the numbers of each client, or with `bars` bars from 0; return the lower end.

    `series` holds a label, the numbers by client, and a pen; `line` is a level with its label.
    """
    entries = [(label, pen) for label, _, pen in series if label]
    if line is not None:
        entries.append((line[1], line[2]))
    top = heading(drawing, box, f"{title}, {unit}" if unit else title, entries)
    left = 52.0
    inner = Box(box.left + left, top + 8, box.width - left - 4, box.height)
    axes = Axes(drawing, inner, Span(0.0, float(len(clients))), y)
    axes.vertical()
    if line is not None:
        drawing.line((inner.left, inner.right), (axes.y(line[0]), axes.y(line[0])), line[2])
    for label, values, pen in series:
        for place, client in enumerate(clients):
            if client in values:
                _draw(
                    axes,
                    place,
                    values[client],
                    pen,
                    f"client {client}" + (label and f", {label}"),
                    unit,
                    bars,
                )
    return name_clients(drawing, inner, clients)


def _draw(axes: Axes, place: int, value: float, pen: Pen, words: str, unit: str, bars: bool) -> None:
    drawing, x = axes.drawing, axes.x(place + 0.5)

    def mark() -> None:
        if bars:
            width = 0.7 * axes.box.width / axes.x_span.high
            drawing.rect(x - width / 2, axes.y(value), width, axes.box.bottom - axes.y(value), pen.colour)
        else:
            drawing.mark(x, axes.y(value), pen, 4.5)

    drawing.telling(f"{words}: {number(value, 3 if bars else 1)} {unit}".rstrip(), mark)


def name_clients(drawing: Drawing, box: Box, clients: Sequence[str]) -> float:
    """Name clients below a box, as many of them as have room; return the lower end."""
    step = box.width / len(clients)
    names = [short_label(client, 8) for client in clients]
    every = max(1, int(-(-(max(map(text_width, names)) + 10) // step)))
    for place in range(0, len(clients), every):
        drawing.text(box.left + (place + 0.5) * step, box.bottom + 17, names[place], anchor="middle")
    drawing.text(box.left + box.width / 2, box.bottom + 36, "client", anchor="middle")
    return box.bottom + 42

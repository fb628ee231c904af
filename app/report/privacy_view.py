"""The report's section on privacy: the clients' budgets, and what they spent over the rounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.report.axes import Box, Curve, Span, curves_panel
from app.report.reading import RunRecord
from app.report.svg import BLUE, MUTED, Drawing, Pen, Picture, drawn, short_label
from app.report.tables import NumberTable, Row
from app.report.wording import MISSING, count, meaning_of, number
from strategies.core.wire import client_sort_key

_MOST_CURVES = 30
_COLUMNS = ("budget ε", "spent ε", "noise", "remark")


@dataclass(frozen=True)
class PrivacyView:
    """The content of the section."""

    words: str
    meaning: str
    picture: Picture | None
    table: NumberTable


def privacy_view(record: RunRecord) -> PrivacyView | None:
    """Return the section; None if the run is not private or not finished."""
    privacy = record.summary.get("privacy")
    if not privacy:
        return None
    clients = sorted(privacy["clients"].items(), key=lambda item: client_sort_key(item[0]))
    caption = "What every client has spent of its budget."
    rows = tuple(_row(i, row) for i, row in clients)
    table = NumberTable(caption, "client", _COLUMNS, rows, texts=_COLUMNS[-1:])
    return PrivacyView(_words(privacy), meaning_of(privacy), _curve(record.rounds, privacy), table)


def _words(privacy: Mapping[str, Any]) -> str:
    seeded = (
        " Noise was derived from the run's seed: it protects only against those who do not know the seed."
        if privacy["randomness"] == "seeded"
        else ""
    )
    asked = privacy.get("analytics-epsilon")
    answered = f" Of every client's ε, {asked:g} is for the question before the training." if asked else ""
    unamplified = privacy.get("epsilon-unamplified")
    without = (
        f" ε is at most {number(privacy['epsilon'], 3)} for those who do not see who took part, and "
        f"{number(unamplified, 3)} for those who do."
        if unamplified is not None
        else ""
    )
    engine = privacy.get("engine")
    clipped = f", clipped by {engine}" if engine else ""
    return (
        f"Unit: {privacy['unit']}; two data sets {privacy['neighbours']}. Noise by the "
        f"{privacy['noise-by']}, clip norm {privacy['clip-norm']:g}, δ = {privacy['delta']:g}, sampling: "
        f"{privacy['sampling']}, accountant {privacy['accountant']}{clipped}.{without}{answered}{seeded}"
    )


def _row(client_id: str, row: Mapping[str, Any]) -> Row:
    remarks = []
    if refused := int(row["refused-rounds"]):
        remarks.append(f"refused {count(refused, 'round')}: {row['reason']}")
    if unreported := int(row["unreported-rounds"]):
        remarks.append(f"asked {count(unreported, 'time')} without an answer since: may have spent more")
    if (unamplified := row.get("epsilon-unamplified")) is not None:
        remarks.append(f"ε = {number(unamplified, 3)} for those who see in which rounds it took part")
    epsilon = row["epsilon"]
    cells = (
        "none" if row["budget"] is None else number(row["budget"], 2),
        "no bound" if epsilon is None else number(epsilon, 3),
        MISSING if row["noise-multiplier"] is None else number(row["noise-multiplier"], 3),
        "; ".join(remarks),
    )
    return Row(client_id, cells)


def _curve(rounds: Sequence[Mapping[str, Any]], privacy: Mapping[str, Any]) -> Picture | None:
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in rounds:
        for client_id, epsilon in (line.get("epsilons") or {}).items():
            if epsilon is not None:
                curves.setdefault(client_id, []).append((int(line["round"]), float(epsilon)))
    if not curves:
        return None
    highest = max(curves, key=lambda client_id: curves[client_id][-1][1])
    last = curves[highest][-1]
    caption = (
        f"Privacy spent by {count(len(curves), 'client')}; at most ε = {number(last[1], 3)}, by client "
        f"{highest}, after round {last[0]}."
    )
    others = [i for i in sorted(curves, key=client_sort_key) if i != highest][:_MOST_CURVES]
    shown = [Curve(f"client {i}, ε", curves[i], Pen(MUTED, width=0.9), "epsilon") for i in others]
    shown.append(Curve(f"client {highest}, ε", curves[highest], Pen(BLUE, "o"), "epsilon"))
    legend = [(f"client {short_label(highest)}, most", Pen(BLUE, "o"))]
    legend += [("other clients", Pen(MUTED, width=0.9))] if others else []

    def draw(drawing: Drawing) -> float:
        box = Box(0.0, 0.0, drawing.width, 190.0)
        span = Span(0.0, 1.05 * max(y for curve in shown for _, y in curve.points) or 1.0)
        unit = f"ε at δ = {privacy['delta']:g}"
        return curves_panel(drawing, box, shown, "Privacy spent", y=span, unit=unit, legend=legend)

    return drawn(draw, "privacy", caption)

"""The report's section on privacy: the clients' budgets, and what they spent over the rounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from app.report.reading import RunRecord
from app.report.svg import BLUE, MUTED, Picture, Sheet, drawn, legend_above, style_axes
from app.report.wording import MISSING, count, number
from strategies.core.wire import client_sort_key

_MOST_CURVES = 30


@dataclass(frozen=True)
class BudgetRow:
    """One client's privacy in a run."""

    client: str
    budget: str
    epsilon: str
    noise: str
    remark: str


@dataclass(frozen=True)
class PrivacyView:
    """The content of the section."""

    words: str
    picture: Picture | None
    rows: tuple[BudgetRow, ...]


def privacy_view(record: RunRecord) -> PrivacyView | None:
    """Return the section; None if the run is not private or not finished."""
    privacy = record.summary.get("privacy")
    if not privacy:
        return None
    clients = sorted(privacy["clients"].items(), key=lambda item: client_sort_key(item[0]))
    return PrivacyView(
        _words(privacy), _curve(record.rounds, privacy), tuple(_row(i, row) for i, row in clients)
    )


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


def _row(client_id: str, row: Mapping[str, Any]) -> BudgetRow:
    remarks = []
    if refused := int(row["refused-rounds"]):
        remarks.append(f"refused {count(refused, 'round')}: {row['reason']}")
    if unreported := int(row["unreported-rounds"]):
        remarks.append(f"asked {count(unreported, 'time')} without an answer since: may have spent more")
    if (unamplified := row.get("epsilon-unamplified")) is not None:
        remarks.append(f"ε = {number(unamplified, 3)} for those who see in which rounds it took part")
    epsilon = row["epsilon"]
    return BudgetRow(
        client_id,
        "none" if row["budget"] is None else number(row["budget"], 2),
        "no bound" if epsilon is None else number(epsilon, 3),
        MISSING if row["noise-multiplier"] is None else number(row["noise-multiplier"], 3),
        "; ".join(remarks),
    )


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
    return drawn(lambda sheet: _figure(sheet, curves, highest, privacy["delta"]), "privacy", caption)


def _figure(
    sheet: Sheet, curves: Mapping[str, Sequence[tuple[int, float]]], highest: str, delta: float
) -> Figure:
    figure = sheet.figure(2.6)
    axes = figure.subplots()
    style_axes(axes, "Privacy spent", "round", f"ε at δ = {delta:g}")
    for client_id in [i for i in sorted(curves, key=client_sort_key) if i != highest][:_MOST_CURVES]:
        axes.plot(*zip(*curves[client_id], strict=True), color=MUTED, linewidth=0.9)
    axes.plot(*zip(*curves[highest], strict=True), color=BLUE, linewidth=1.8, label=f"client {highest}, most")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    legend_above(axes)
    return figure

"""The page of ``lethe diagnose``: a figure, its values by client, and one sentence of advice each."""

from collections.abc import Sequence

from app.report.axes import Box, Span
from app.report.dots import dots_panel
from app.report.svg import BLUE, RED, Drawing, Pen, Picture, drawn
from app.report.template import rendered
from app.report.wording import MISSING, capital
from strategies.analytics.diagnosis import Diagnosis, Finding
from strategies.core.wire import client_sort_key


def render_diagnosis(title: str, diagnosis: Diagnosis) -> str:
    """Return the page as HTML, one file that needs nothing else."""
    shown = [
        {
            "name": f.name,
            "value": figure(f.value),
            "advice": f.advice,
            "scale": f.scale,
            "picture": _picture(f, place),
        }
        for place, f in enumerate(diagnosis.findings)
    ]
    return rendered("diagnosis", {"title": title, "findings": shown, "faults": diagnosis.faults})


def figure(value: float | None) -> str:
    """Return a figure with three digits."""
    return MISSING if value is None else f"{value:.3g}"


def _picture(finding: Finding, place: int) -> Picture | None:
    if not finding.clients:
        return None
    ids: Sequence[str] = sorted(finding.clients, key=client_sort_key)
    largest = max(ids, key=lambda i: finding.clients[i])
    caption = (
        f"The largest is that of client {largest}: {figure(finding.clients[largest])} {finding.unit}. "
        f"{_threshold_words(finding)}"
    )
    return drawn(lambda drawing: _draw(drawing, finding, ids), f"diagnosis-{place}", caption)


def _draw(drawing: Drawing, finding: Finding, ids: Sequence[str]) -> float:
    level = finding.threshold
    line = None if level is None else (level, finding.threshold_name, Pen(RED, dash="--", width=1.4))
    highest = max(*finding.clients.values(), level or 0.0, 0.0)
    lowest = min(*finding.clients.values(), 0.0)
    return dots_panel(
        drawing,
        Box(0.0, 0.0, drawing.width, 140.0),
        [("", {i: finding.clients[i] for i in ids}, Pen(BLUE))],
        ids,
        capital(finding.name),
        y=Span(lowest, 1.05 * highest or 1.0),
        unit=finding.unit,
        bars=True,
        line=line,
    )


def _threshold_words(finding: Finding) -> str:
    if finding.threshold is None:
        return ""
    return f"The dashed line: {figure(finding.threshold)} {finding.unit}, {finding.threshold_name}."

"""The page of ``lethe diagnose``: a figure, its values by client, and one sentence of advice each."""

from collections.abc import Sequence

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from app.report.svg import (
    BLUE,
    RED,
    Picture,
    Sheet,
    drawn,
    legend_above,
    name_clients,
    style_axes,
)
from app.report.template import STYLE_SHEET
from app.report.wording import MISSING, capital
from app.version import version
from strategies.analytics.diagnosis import Diagnosis, Finding
from strategies.core.wire import client_sort_key

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>{{ style_sheet }}</style></head>
<body><main>
<header><h1>{{ title }}</h1></header>
{% for fault in faults %}<p class="notice" role="note">{{ fault }}</p>{% endfor %}
{% for finding in findings %}
<section>
<h2>{{ finding.name | capitalize }}: {{ finding.value }}</h2>
<p>{{ finding.advice }} <span class="muted">{{ finding.scale }}</span></p>
{% if finding.picture %}
<figure>{{ finding.picture.svg }}<figcaption>{{ finding.picture.caption }}</figcaption></figure>
{% endif %}
</section>
{% endfor %}
<footer><p>lethe {{ version }}; what the figures mean: docs/diagnose.md</p></footer>
</main></body></html>
"""


def render_diagnosis(title: str, diagnosis: Diagnosis) -> str:
    """Return the page as HTML, one file that needs nothing else."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
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
    return environment.from_string(_PAGE).render(
        title=title,
        style_sheet=Markup(STYLE_SHEET),
        findings=shown,
        faults=diagnosis.faults,
        version=version(),
    )


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
    return drawn(lambda sheet: _figure(sheet, finding, ids), f"diagnosis-{place}", caption)


def _figure(sheet: Sheet, finding: Finding, ids: Sequence[str]) -> Figure:
    drawing = sheet.figure(2.6 if sheet.narrow else 2.2)
    axes = drawing.subplots()
    style_axes(axes, f"{capital(finding.name)}, by client", "client", finding.unit)
    axes.bar(range(len(ids)), [finding.clients[i] for i in ids], color=BLUE)
    if finding.threshold is not None:
        axes.axhline(
            finding.threshold, color=RED, linewidth=1.4, linestyle="--", label=finding.threshold_name
        )
        legend_above(axes)
    name_clients(axes, ids)
    return drawing


def _threshold_words(finding: Finding) -> str:
    if finding.threshold is None:
        return ""
    return f"The dashed line: {figure(finding.threshold)} {finding.unit}, {finding.threshold_name}."

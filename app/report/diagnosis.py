"""The page of ``lethe diagnose``: a figure, its values by client, and one sentence of advice each."""

from collections.abc import Sequence

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from app.report.canvas import BLUE, Picture, new_figure, style_axes, to_svg
from app.report.template import STYLE_SHEET
from app.version import version
from app.wording import MISSING
from app.workflows.diagnosing import Diagnosis
from strategies.diagnosis import Finding
from strategies.wire import client_sort_key

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>{{ style_sheet }}</style></head>
<body><main>
<header><h1>{{ title }}</h1></header>
{% for fault in faults %}<p class="problem">{{ fault }}</p>{% endfor %}
{% for finding in findings %}
<section>
<h2>{{ finding.name }}: {{ finding.value }}</h2>
<p>{{ finding.advice }}</p>
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
        {"name": f.name, "value": figure(f.value), "advice": f.advice, "picture": _picture(f, place)}
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
    drawing = new_figure(2.2)
    axes = drawing.subplots()
    style_axes(axes, f"{finding.name}, by client", "client", "")
    axes.bar(range(len(ids)), [finding.clients[i] for i in ids], color=BLUE)
    axes.set_xticks(range(len(ids)), labels=[i[:8] for i in ids])
    largest = max(ids, key=lambda i: finding.clients[i])
    caption = f"The largest is that of client {largest}: {figure(finding.clients[largest])}."
    return Picture(to_svg(drawing, f"diagnosis-{place}", caption), caption)

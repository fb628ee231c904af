"""The Jinja templates of the report: parts that pages share, and the page of one run.

They are Python text, not files beside it, because the bundle for a SuperLink carries Python files only.
"""

from collections.abc import Mapping
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from app.report.script import SCRIPT, policy
from app.report.style import STYLE_SHEET
from app.version import version

_PARTS = """
{%- macro table(t, id, style="") %}
<p class="caption" id="caption-{{ id }}">{{ t.caption }}</p>
<div class="scroll" role="group" tabindex="0" aria-labelledby="caption-{{ id }}">
<table id="{{ id }}" class="sortable {{ style }}" aria-labelledby="caption-{{ id }}">
<thead><tr><th scope="col">{{ t.first }}</th>
{% for column in t.columns %}
<th scope="col" class="{{ "text" if t.is_text(loop.index0) else "num" }}">{{ column }}</th>
{% endfor %}</tr></thead>
<tbody>
{% for row in t.rows %}
<tr{% if row.kind %} class="{{ row.kind }}"{% endif %}><th scope="row">{{ row.label }}</th>
{% for text in row.cells %}
<td class="{{ "text" if t.is_text(loop.index0) else "num" }}">{{ text }}</td>
{%- endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endmacro %}
{%- macro save(kind, name, id="") %}
<button type="button" hidden data-save="{{ kind }}" data-name="{{ name }}" data-table="{{ id }}">
{{- kind | upper }}<span class="hidden"> of {{ name }}</span></button>
{% endmacro %}
{%- macro numbers(t, id, style="") %}
{{ table(t, id, style) }}
<p class="tools">{{ save("csv", id, id) }}</p>
{% endmacro %}
{%- macro picture(picture, level="") %}
{% if picture %}
<figure id="figure-{{ picture.name }}">{{ picture.svg }}<figcaption>{{ picture.caption }}</figcaption>
<p class="tools">{{ save("png", picture.name) }}
{%- if picture.table %}{{ save("csv", picture.name, "numbers-" + picture.name) }}{% endif %}</p>
{% if picture.table %}
<details class="numbers"><summary>The numbers of this figure</summary>
{{ table(picture.table, "numbers-" + picture.name) }}</details>
{% endif %}
</figure>
{% endif %}
{% endmacro %}
{%- macro notes(lines) %}
{% if lines %}
<ul>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul>
{% endif %}
{% endmacro %}
{%- macro files(links) %}
{% if links %}
<ul class="files">
{% for link in links %}<li><a href="{{ link.href }}">{{ link.words }}</a></li>{% endfor %}</ul>
{% endif %}
{% endmacro %}
"""

_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="Lethe {{ version }}">
<title>{% block title %}{% endblock %}</title>
<style>{{ style_sheet }}</style>
</head>
<body>
<a class="skip hidden" href="#content">Skip to the content</a>
<main id="content">
{% block content %}{% endblock %}
<footer>Written by Lethe {{ version }}. This page is one file and loads nothing from elsewhere.
<span id="keys">In a figure, the arrow keys go through its values.</span></footer>
</main>
<script>{{ script }}</script>
</body>
</html>
"""

_RUN = """
{% extends "frame" %}
{% from "parts" import table, numbers, picture, notes, files, save %}
{% block title %}{{ name }} – Lethe report{% endblock %}
{% block content %}
<header>
<p class="kicker">Federated training and forgetting: report</p>
<h1>{{ name }}</h1>
<p class="muted">{{ subtitle }}</p>
</header>

{% for problem in problems %}<p class="notice" role="note">{{ problem }}</p>
{% endfor %}
<section id="in-short" aria-label="In short">
{% if cards %}
<ul class="headline">
{% for card in cards %}<li><b>{{ card[0] }}</b><span>{{ card[1] }}</span></li>
{% endfor %}
</ul>
{% endif %}
<ul class="short">{% for line in in_short %}<li>{{ line }}</li>{% endfor %}</ul>
</section>

<nav class="contents" aria-label="Contents">
<ol>{% for entry in contents %}<li><a href="#{{ entry[0] }}">{{ entry[1] }}</a></li>{% endfor %}</ol>
</nav>

<section id="facts">
<h2>The run</h2>
<dl class="facts">
{% for fact in facts %}<div><dt>{{ fact[0] }}</dt><dd>{{ fact[1] }}</dd></div>
{% endfor %}
</dl>
{{ files(links) }}
<p class="tools"><a download="{{ file_name }}.json" href="{{ data }}">JSON of all figures</a></p>
</section>

<section id="forgetting">
<h2>Forgetting</h2>
{% if not forgettings %}
<p>Nothing has been forgotten in this run yet.</p>
{% endif %}
{% if overview %}{{ numbers(overview, "forgettings") }}{% endif %}
{% for item in forgettings %}
{% set place = loop.index0 | string %}
<article>
<h3>{{ item.title }}</h3>
{% if item.guarantee %}<p><b>What the method promises:</b> {{ item.guarantee }}</p>{% endif %}
{% if item.headline %}
<ul class="headline">
{% for figure in item.headline %}<li><b>{{ figure[0] }}</b><span>{{ figure[1] }}</span></li>
{% endfor %}
</ul>
{% endif %}
{% if item.table %}
{% if item.verdict %}<p class="verdict"><b>Verdict:</b> {{ item.verdict }}.</p>{% endif %}
{% for words in item.attacks %}<p>{{ words }}</p>
{% endfor %}
{{ numbers(item.table, "forgetting-" + place, "metrics") }}
{{ picture(item.picture) }}
{% else %}
<p class="notice" role="note">This forgetting was not audited: nothing is known of how complete it is.</p>
{% endif %}
{{ notes(item.notes) }}
{% if item.images %}
<figure>
<p class="caption">Test images with the attack's trigger, and the class that each model sees in them.</p>
<div class="scroll" role="group" tabindex="0" aria-label="Test images with the attack's trigger">
<table class="triggered">
<tr><th scope="row">image</th>
{% for image in item.images %}<td><img src="{{ image.source }}" alt="{{ image.alt }}"></td>{% endfor %}</tr>
<tr><th scope="row">true class</th>
{% for image in item.images %}<td>{{ image.true_class }}</td>{% endfor %}</tr>
{% for row in item.image_rows %}
<tr><th scope="row">{{ row.label }}</th>
{% for verdict in row.verdicts %}<td class="{{ verdict[0] }}">{{ verdict[1] }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
<figcaption>{{ item.image_caption }}</figcaption>
</figure>
{% endif %}
{% if item.attack_tables %}
<details>
<summary>Attacks on single examples</summary>
{% for table in item.attack_tables %}
{{ numbers(table, "forgetting-attack-" + loop.index | string + "-" + place) }}
{% endfor %}
</details>
{% endif %}
{% if item.clients %}
<details>
<summary>Accuracy by client</summary>
{{ numbers(item.clients, "forgetting-clients-" + place) }}
</details>
{% endif %}
{% if item.extras %}
<details>
<summary>Further measures</summary>
{{ numbers(item.extras, "forgetting-measures-" + place) }}
</details>
{% endif %}
{{ files(item.links) }}
</article>
{% endfor %}
</section>

{% if comparisons %}
<section id="compared">
<h2>Methods compared</h2>
{% for comparison in comparisons %}
{% set outer = loop.index0 | string %}
<article>
<h3>{{ comparison.title }}</h3>
<p class="muted">{{ comparison.over }}.</p>
{{ notes(comparison.conclusions) }}
{{ picture(comparison.picture) }}
{% for table in comparison.tables %}
{{ numbers(table, "compared-" + outer + "-" + loop.index0 | string) }}{% endfor %}
{% if comparison.notes %}
<details>
<summary>Remarks on the runs</summary>
{{ notes(comparison.notes) }}
</details>
{% endif %}
</article>
{% endfor %}
</section>
{% endif %}

{% if explained %}
<section id="reading">
<h2>How to read the columns</h2>
<p>Every number is to be read against the <i>retrained</i> model: one trained from the start, in the same way,
without the forgotten data. It is what perfect forgetting gives.</p>
{% if scored %}<p>This run's task has no labels, so every accuracy is a mean score, from 0 to 100, of the
task's own.</p>
{% endif %}
<dl class="legend">
{% for column in columns %}<dt>{{ column.short }}</dt><dd>{{ column.title }}. {{ column.meaning }}</dd>
{% endfor %}
<dt>gap</dt>
<dd>After minus retrained, in percentage points; for the time, after as a multiple of retraining.</dd>
<dt>disparity</dt><dd>{{ disparity_meaning }}</dd>
</dl>
</section>
{% endif %}

<section id="learning">
<h2>Learning</h2>
{% if learning %}{{ picture(learning) }}{% else %}<p>No round was evaluated.</p>{% endif %}
{% for evaluation in evaluations %}
{% set outer = loop.index0 | string %}
<h3>{{ evaluation.title }}</h3>
{{ picture(evaluation.picture) }}
{% if evaluation.remark %}<p class="muted">{{ evaluation.remark }}</p>{% endif %}
{% for table in evaluation.tables %}
{{ numbers(table, "figures-" + outer + "-" + loop.index0 | string) }}{% endfor %}
{% endfor %}
</section>

{% if privacy %}
<section id="privacy">
<h2>Privacy</h2>
<p>{{ privacy.words }}</p>
<p>{{ privacy.meaning }}</p>
{{ picture(privacy.picture) }}
{{ numbers(privacy.table, "budgets") }}
</section>
{% endif %}

{% if client_models %}
<section id="client-models">
<h2>Clients' own models</h2>
{{ picture(client_models.picture) }}
{{ numbers(client_models.table, "own-models") }}
</section>
{% endif %}

<section id="contributions">
<h2>What each client contributed</h2>
{% if contributions %}
{{ picture(contributions) }}
{% if not averaging %}
<p class="muted">The strategy does not simply average the updates, so their lengths show what the clients
sent, not how far each moved the model.</p>
{% endif %}
{% else %}
<p>Not known: the run has no update log with a complete round.</p>
{% endif %}
{% if clients %}{{ numbers(clients, "clients") }}{% endif %}
</section>

{% if suspects %}
<section id="suspects">
<h2>Which client looks bad</h2>
{% for line in suspicions %}<p>{{ line }}</p>
{% endfor %}
{{ numbers(suspects, "suspect-list") }}
</section>
{% endif %}

<section id="labels">
<h2>How the data are spread over the clients</h2>
{% if labels %}
{{ picture(labels) }}
{% else %}
<p>Not known: the clients did not tell their label counts.</p>
{% endif %}
</section>

<section id="faults">
<h2>Faults by client</h2>
{% if faults %}
{{ numbers(faults, "fault-list") }}
{% if more_faults %}<p class="muted">{{ more_faults }}</p>{% endif %}
{% else %}
<p>None are known.</p>
{% endif %}
</section>

<section id="cost">
<h2>Time, bytes and visits</h2>
{{ numbers(costs, "costs") }}
</section>

<section id="settings">
<h2>Settings</h2>
<details>
<summary>The resolved run config (config.toml)</summary>
<pre tabindex="0"><code>{{ config_toml }}</code></pre>
</details>
</section>
{% endblock %}
"""

_RUNS = """
{% extends "frame" %}
{% from "parts" import table, numbers, picture, notes, files, save %}
{% block title %}{{ names }} – Lethe report{% endblock %}
{% block content %}
<header>
<p class="kicker">Runs side by side</p>
<h1>{{ names }}</h1>
</header>
{% for problem in problems %}<p class="notice" role="note">{{ problem }}</p>
{% endfor %}
<nav class="contents" aria-label="Contents">
<ol>{% for entry in contents %}<li><a href="#{{ entry[0] }}">{{ entry[1] }}</a></li>{% endfor %}</ol>
</nav>
<section id="figures">
<h2>Figures</h2>
{{ numbers(figures, "runs") }}
{{ files(links) }}
<p class="tools"><a download="{{ file_name }}.json" href="{{ data }}">JSON of all figures</a></p>
</section>
<section id="learning">
<h2>Learning</h2>
{% for curve in curves %}{{ picture(curve) }}{% else %}<p>No round was evaluated.</p>{% endfor %}
</section>
<section id="config">
<h2>How the configs differ</h2>
{% if differences %}{{ numbers(differences, "differences") }}
{% else %}<p>They do not, but for the run's name and place.</p>{% endif %}
</section>
<section id="forgetting">
<h2>Forgetting</h2>
{% if forgettings %}{{ numbers(forgettings, "forgettings") }}
{{ notes(verdicts) }}
{% else %}<p>Nothing has been forgotten in these runs yet.</p>{% endif %}
</section>
{% endblock %}
"""

_DIAGNOSIS = """
{% extends "frame" %}
{% from "parts" import picture %}
{% block title %}{{ title }}{% endblock %}
{% block content %}
<header><h1>{{ title }}</h1></header>
{% for fault in faults %}<p class="notice" role="note">{{ fault }}</p>{% endfor %}
{% for finding in findings %}
<section>
<h2>{{ finding.name | capitalize }}: {{ finding.value }}</h2>
<p>{{ finding.advice }} <span class="muted">{{ finding.scale }}</span></p>
{{ picture(finding.picture) }}
</section>
{% endfor %}
<p class="muted">What the figures mean: docs/diagnose.md</p>
{% endblock %}
"""

_TEMPLATES = {"parts": _PARTS, "frame": _FRAME, "run": _RUN, "runs": _RUNS, "diagnosis": _DIAGNOSIS}


def rendered(template: str, context: Mapping[str, Any]) -> str:
    """Return the page ``run``, ``runs`` or ``diagnosis``, one file that needs nothing else."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=DictLoader(_TEMPLATES),
    )
    frame = {
        "version": version(),
        "style_sheet": Markup(STYLE_SHEET),
        "script": Markup(SCRIPT),
        "policy": policy(STYLE_SHEET, SCRIPT),
    }
    page = environment.get_template(template).render({**frame, **context}).strip() + "\n"
    return page.encode(errors="replace").decode()  # Half a character, as JSON can have one, is no UTF-8

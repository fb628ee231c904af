"""The report's page: style sheet and Jinja template.

They are Python text, not files beside it, because the bundle for a SuperLink carries Python files only.
"""

STYLE_SHEET = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1a1f24; --muted: #56616b; --grid: #d5dbe0; --tint: #f4f6f8;
  --shade: #56616b80;
  --blue: #0072b2; --orange: #e69f00; --red: #c44e00; --green: #00795a;
  --purple: #9c4a80;
  --font: "Segoe UI", Roboto, "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #14181c; --ink: #e6eaed; --muted: #a3aeb8; --grid: #3a434b; --tint: #1d2328;
    --shade: #a3aeb880;
    --blue: #56b4e9; --orange: #e69f00; --red: #ff8f4a; --green: #3ccb9f;
    --purple: #d98fbd;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 var(--font); }
main { max-width: 1120px; margin: 0 auto; padding: 32px 32px 64px; }
header { border-bottom: 3px solid var(--blue); padding-bottom: 14px; margin-bottom: 22px; }
h1 { font-size: 30px; line-height: 1.2; margin: 2px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 40px 0 10px; padding-top: 10px; border-top: 1px solid var(--grid); }
h3 { font-size: 17px; margin: 26px 0 6px; overflow-wrap: anywhere; }
p, ul { margin: 6px 0 12px; max-width: 80ch; }
ul { padding-left: 22px; }
li { margin: 3px 0; overflow-wrap: anywhere; }
code { font: 0.92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.kicker { color: var(--muted); font-size: 13px; letter-spacing: .08em; text-transform: uppercase; margin: 0; }
.muted, figcaption, .facts dt, .legend dd { color: var(--muted); }
.notice { border-left: 4px solid var(--orange); background: var(--tint); padding: 8px 14px; margin: 10px 0; }
.short, .short li { font-size: 16px; max-width: 100ch; }
.facts { display: grid; gap: 10px 26px; grid-template-columns: repeat(auto-fill, minmax(235px, 1fr)); }
.facts { margin: 0; }
.facts dt { font-size: 12.5px; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 8px 0 12px; }
.scroll table { margin: 0; }
table { border-collapse: collapse; margin: 8px 0 12px; font-variant-numeric: tabular-nums; }
.caption { color: var(--muted); font-size: 13.5px; margin: 12px 0 4px; max-width: 100ch; }
th, td { padding: 5px 14px 5px 0; text-align: left; vertical-align: top; }
th, td { border-bottom: 1px solid var(--grid); }
th { font-weight: 600; }
thead th { font-size: 13px; color: var(--muted); vertical-align: bottom; border-bottom-width: 2px; }
td.num, th.num { text-align: right; padding: 5px 10px 5px 22px; white-space: nowrap; }
td.text { overflow-wrap: anywhere; }
tr.after td, tr.after th { font-weight: 700; color: var(--blue); }
tr.gap td, tr.gap th { background: var(--tint); }
.metrics { width: 100%; }
.headline { display: flex; flex-wrap: wrap; gap: 12px; margin: 10px 0 14px; padding: 0; max-width: none;
  list-style: none; }
.headline li { border: 1px solid var(--grid); border-radius: 6px; padding: 8px 16px; margin: 0; }
.headline b { display: block; font-size: 22px; line-height: 1.25; }
.headline span { color: var(--muted); font-size: 13px; }
.legend { display: grid; gap: 4px 16px; grid-template-columns: max-content 1fr; font-size: 14px; }
.legend dt { font-weight: 600; }
.legend dd { margin: 0; max-width: 90ch; }
figure { margin: 12px 0 18px; }
figcaption { font-size: 13.5px; max-width: 100ch; overflow-wrap: anywhere; }
.chart { display: block; width: 100%; height: auto; }
.narrow { display: none; max-width: 520px; }
.chart * { stroke-linejoin: round; stroke-linecap: butt; }
.triggered th, .triggered td { text-align: center; padding: 4px 6px; vertical-align: middle; }
.triggered th[scope=row] { text-align: left; padding-right: 14px; white-space: nowrap; }
.triggered img { width: 72px; height: 72px; image-rendering: pixelated; border: 1px solid var(--grid); }
.hit { color: var(--red); font-weight: 700; }
.right { color: var(--green); }
details { margin: 12px 0; }
summary { cursor: pointer; font-weight: 600; }
pre { background: var(--tint); padding: 12px 16px; font-size: 13px; line-height: 1.45; white-space: pre-wrap;
  overflow-wrap: anywhere; }
footer { margin-top: 48px; border-top: 1px solid var(--grid); padding-top: 10px; }
footer { color: var(--muted); font-size: 13px; }
@media screen and (max-width: 960px) {
  main { padding: 20px 16px 48px; }
  .wide { display: none; }
  .narrow { display: block; }
  .scroll {
    background: linear-gradient(to right, var(--paper) 40%, transparent) left / 48px 100% no-repeat local,
    linear-gradient(to left, var(--paper) 40%, transparent) right / 48px 100% no-repeat local,
    linear-gradient(to right, var(--shade), transparent) left / 16px 100% no-repeat scroll,
    linear-gradient(to left, var(--shade), transparent) right / 16px 100% no-repeat scroll; }
  tr.gap td, tr.gap th { background: none; }
  .scroll th:first-child { position: sticky; left: 0; background: var(--paper); }
  .facts { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
  td.num, th.num { padding: 5px 8px; }
  th, td { padding-right: 8px; }
  .triggered img { width: 48px; height: 48px; }
}

@page { margin: 14mm; }
@media print {
  body { font-size: 10.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  h2, h3 { break-after: avoid; }
  figure, table, .headline li, .notice { break-inside: avoid; }
  .scroll { overflow: visible; }
  .triggered img { width: 46px; height: 46px; }
  details::details-content { content-visibility: visible; }
}
"""

PAGE = """
{%- macro picture(picture) %}
{% if picture %}
<figure>{{ picture.svg }}<figcaption>{{ picture.caption }}</figcaption></figure>
{% endif %}
{% endmacro %}
{%- macro notes(lines) %}
{% if lines %}
<ul>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul>
{% endif %}
{% endmacro %}
{%- macro numbers(first, columns, rows, style="") %}
<div class="scroll"><table>
<thead><tr><th scope="col">{{ first }}</th>
{% for column in columns %}<th scope="col" class="num">{{ column }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}
<tr><th scope="row"{% if style %} class="{{ style }}"{% endif %}>{{ row.label }}</th>
{% for text in row.cells %}<td class="num">{{ text }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endmacro %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="Lethe {{ version }}">
<title>{{ name }} – Lethe report</title>
<style>{{ style_sheet }}</style>
</head>
<body>
<main>
<header>
<p class="kicker">Federated training and forgetting: report</p>
<h1>{{ name }}</h1>
<p class="muted">{{ subtitle }}</p>
</header>

{% for problem in problems %}<p class="notice" role="note">{{ problem }}</p>
{% endfor %}
<section id="in-short" aria-label="In short">
<ul class="short">{% for line in in_short %}<li>{{ line }}</li>{% endfor %}</ul>
</section>

<section id="facts">
<h2>The run</h2>
<dl class="facts">
{% for fact in facts %}<div><dt>{{ fact[0] }}</dt><dd>{{ fact[1] }}</dd></div>
{% endfor %}
</dl>
</section>

<section id="forgetting">
<h2>Forgetting</h2>
{% if not forgettings %}
<p>Nothing has been forgotten in this run yet.</p>
{% endif %}
{% if overview %}
<p class="caption">All requests that were answered.</p>
<div class="scroll"><table>
<thead><tr><th scope="col">forgotten</th><th scope="col">method</th><th scope="col" class="num">seconds</th>
<th scope="col" class="num">disparity, points</th></tr></thead>
<tbody>
{% for row in overview %}
<tr><td class="text">{{ row.subject }}</td><td>{{ row.method }}</td><td class="num">{{ row.seconds }}</td>
<td class="num">{{ row.disparity }}</td></tr>
{% endfor %}
</tbody>
</table></div>
{% endif %}
{% for item in forgettings %}
<article>
<h3>{{ item.title }}</h3>
{% if item.guarantee %}<p><b>What the method promises:</b> {{ item.guarantee }}</p>{% endif %}
{% if item.headline %}
<ul class="headline">
{% for figure in item.headline %}<li><b>{{ figure[0] }}</b><span>{{ figure[1] }}</span></li>
{% endfor %}
</ul>
{% endif %}
{% if item.rows %}
<div class="scroll"><table class="metrics">
<thead><tr><th scope="col">model</th>
{% for column in columns %}<th scope="col" class="num">
<abbr title="{{ column.title }}">{{ column.short }}</abbr>{% if column.unit == "%" %}, %{% endif %}</th>
{% endfor %}</tr></thead>
<tbody>
{% for row in item.rows %}
<tr class="{{ row.kind }}"><th scope="row">{{ row.label }}</th>
{% for text in row.cells %}<td class="num">{{ text }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% if item.verdict %}<p class="verdict"><b>Verdict:</b> {{ item.verdict }}.</p>{% endif %}
{{ picture(item.picture) }}
{% else %}
<p class="notice" role="note">This forgetting was not audited: nothing is known of how complete it is.</p>
{% endif %}
{{ notes(item.notes) }}
{% if item.images %}
<figure>
<p class="caption">Test images with the attack's trigger, and the class that each model sees in them.</p>
<div class="scroll"><table class="triggered">
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
{% if item.extras %}
<details>
<summary>Further measures</summary>
{{ numbers("measure", ["before", "after", "retrained"], item.extras) }}
</details>
{% endif %}
</article>
{% endfor %}
</section>

{% if comparisons %}
<section id="compared">
<h2>Methods compared</h2>
{% for comparison in comparisons %}
<article>
<h3>{{ comparison.title }}</h3>
<p class="muted">{{ comparison.over }}.</p>
{{ picture(comparison.picture) }}
{% for table in comparison.tables %}
<p class="caption">{{ table.caption }}</p>
<div class="scroll"><table>
<thead><tr><th scope="col">model</th>
{% for column in table.columns %}<th scope="col" class="num">{{ column }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr><th scope="row">{{ row[0] }}</th>
{% for text in row[1:] %}<td class="num">{{ text }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endfor %}
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
<h3>{{ evaluation.title }}</h3>
{% for table in evaluation.tables %}
<p class="caption">{{ table.caption }}</p>
{{ numbers(table.first, table.columns, table.rows) }}
{% endfor %}
{% endfor %}
</section>

{% if privacy %}
<section id="privacy">
<h2>Privacy</h2>
<p>{{ privacy.words }}</p>
{{ picture(privacy.picture) }}
<p class="caption">What every client has spent of its budget.</p>
<div class="scroll"><table>
<thead><tr><th scope="col">client</th><th scope="col" class="num">budget ε</th>
<th scope="col" class="num">spent ε</th><th scope="col" class="num">noise</th>
<th scope="col">remark</th></tr></thead>
<tbody>
{% for row in privacy.rows %}
<tr><th scope="row">{{ row.client }}</th><td class="num">{{ row.budget }}</td>
<td class="num">{{ row.epsilon }}</td><td class="num">{{ row.noise }}</td><td>{{ row.remark }}</td></tr>
{% endfor %}
</tbody></table></div>
</section>
{% endif %}

{% if client_models %}
<section id="client-models">
<h2>Clients' own models</h2>
{{ picture(client_models.picture) }}
<p class="caption">{{ client_models.table_caption }}</p>
{{ numbers("client", client_models.columns, client_models.rows) }}
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
</section>

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
<div class="scroll"><table>
<thead><tr><th scope="col">client</th><th scope="col" class="num">faults</th>
<th scope="col">what happened</th></tr></thead>
<tbody>
{% for row in faults %}
<tr><th scope="row" class="text">{{ row.client }}</th><td class="num">{{ row.count }}</td>
<td class="text">{{ row.what }}</td></tr>
{% endfor %}
</tbody></table></div>
{% if more_faults %}<p class="muted">{{ more_faults }}</p>{% endif %}
{% else %}
<p>None are known.</p>
{% endif %}
</section>

<section id="cost">
<h2>Time, bytes and visits</h2>
{{ numbers("work", ["seconds", "from clients", "to clients", "client visits", "update log"], costs, "text") }}
</section>

<section id="settings">
<h2>Settings</h2>
<details>
<summary>The resolved run config (config.toml)</summary>
<pre><code>{{ config_toml }}</code></pre>
</details>
</section>

<footer>Written by Lethe {{ version }}. This page is one file and loads nothing from elsewhere.</footer>
</main>
</body>
</html>
"""

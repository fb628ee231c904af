"""The page itself: plain HTML, the report's style sheet, and a script that asks for what is new.

It is Python text, not files beside it, because
the bundle for a SuperLink carries Python files only.
"""

from collections.abc import Mapping
from html import escape
from typing import Any

from app.report.style import STYLE_SHEET
from app.version import version
from app.watching.script import SCRIPT
from strategies.runs.files import to_json

_STYLE = """
.state { font-weight: 600; }
.state.running { color: var(--green); } .state.failed, .state.deleted { color: var(--red); }
.state.interrupted { color: var(--orange); }
.bar { height: 10px; border-radius: 5px; background: var(--grid); overflow: hidden; margin: 6px 0 4px; }
.bar div { height: 100%; background: var(--blue); width: 0; }
.charts { display: grid; gap: 12px 28px; }
.charts { grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); }
.charts figure { margin: 0; min-width: 0; }
.charts svg { display: block; width: 100%; height: 220px; }
.charts text { fill: var(--muted); font: 12px var(--font); }
.charts .curve { fill: none; stroke: var(--blue); stroke-width: 2; }
.charts .loss .curve { stroke: var(--orange); }
.charts circle { fill: var(--blue); } .charts .loss circle { fill: var(--orange); }
.charts line { stroke: var(--grid); }
.charts line.kept { stroke: var(--green); stroke-width: 2; stroke-dasharray: 5 3; }
.kept { color: var(--green); }
.bad { color: var(--red); }
h2 { margin-top: 28px; }
.scroll td.text { min-width: 15em; } .scroll th.text { min-width: 6em; }
[hidden] { display: none; }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@NAME@ – Lethe</title>
<link rel="icon" href="data:,">
<style nonce="@NONCE@">@STYLE@</style>
</head>
<body>
<main>
<header>
<p class="kicker">Federated training and forgetting: live</p>
<h1>@NAME@</h1>
<p><span id="state" class="state"></span> <span class="muted" id="far"></span></p>
<div class="bar"><div id="done"></div></div>
</header>
<p class="notice" role="alert" id="lost" hidden>lethe watch does not answer: this page stands still.</p>
<p class="notice" role="note" id="advice" hidden></p>
<p class="text" id="kept" hidden></p>
<ul class="headline" id="figures"></ul>
<div class="charts">
<figure hidden><svg id="headline-chart" role="img"></svg><figcaption></figcaption></figure>
<figure hidden class="loss"><svg id="loss-chart" role="img"></svg><figcaption></figcaption></figure>
</div>
<section id="works" hidden>
<h2>Forgetting and audits</h2>
<div class="scroll"><table><thead><tr><th scope="col">work</th><th scope="col">state</th>
<th scope="col" class="num">steps</th><th scope="col">how far</th></tr></thead>
<tbody id="works-rows"></tbody></table></div>
</section>
<section id="latest" hidden>
<h2 id="latest-title"></h2>
<p id="who" class="text"></p>
<div class="scroll" id="faults" hidden><table><thead><tr><th scope="col">client</th><th scope="col">when</th>
<th scope="col">what is wrong</th></tr></thead><tbody id="faults-rows"></tbody></table>
<p class="muted" id="more-faults"></p></div>
</section>
<section id="notes" hidden>
<h2>Notes</h2>
<ul id="notes-rows"></ul>
</section>
<section id="clients" hidden>
<h2>Clients</h2>
<div class="scroll"><table><thead><tr><th scope="col">client</th><th scope="col" class="num">asked</th>
<th scope="col" class="num">answered</th><th scope="col" class="num">faults</th>
<th scope="col">last fault</th></tr></thead><tbody id="clients-rows"></tbody></table></div>
<p class="muted" id="more-clients"></p>
</section>
<section id="rounds" hidden>
<h2>Rounds</h2>
<details><summary>The last 200, latest first</summary>
<div class="scroll"><table><thead><tr><th scope="col">round</th>
<th scope="col" class="num" id="rounds-headline">figure</th><th scope="col" class="num">loss</th>
<th scope="col" class="num">seconds</th><th scope="col" class="num">from clients</th>
<th scope="col" class="num">to clients</th><th scope="col" class="num">asked</th>
<th scope="col" class="num">answered</th><th scope="col" class="num">failed</th></tr></thead>
<tbody id="rounds-rows"></tbody></table></div></details>
</section>
<footer>Lethe @VERSION@. This page reads the run's folder and is served on this machine alone.</footer>
</main>
<script type="application/json" id="now" nonce="@NONCE@">@STATE@</script>
<script nonce="@NONCE@">@SCRIPT@</script>
</body>
</html>
"""


def page(state: Mapping[str, Any], nonce: str = "") -> str:
    """Return the page as it is at a state, as `Watched.since` tells it; it asks for what follows itself.

    `nonce` is the word by which the answer's headers allow this page's own script and style, and no other.
    """
    now = to_json(state).replace("&", "\\u0026").replace("<", "\\u003c").replace("\u2028", "\\u2028")
    parts = {
        "NAME": escape(str(state.get("name", ""))),
        "NONCE": nonce,
        "STYLE": STYLE_SHEET + _STYLE,
        "VERSION": escape(version()),
        "SCRIPT": SCRIPT,
        "STATE": now,
    }
    text = _PAGE
    for name, value in parts.items():
        text = text.replace(f"@{name}@", value)
    return text

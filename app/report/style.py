"""The report's style sheet: for screens light and dark, from a phone's width up, and for paper.

It is Python text, not a file beside it, because the bundle for a SuperLink carries Python files only.
"""

COLOURS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1a1f24; --muted: #56616b; --grid: #d5dbe0; --tint: #f4f6f8;
  --shade: #56616b80;
  --blue: #0072b2; --orange: #e69f00; --red: #c44e00; --green: #00795a;
  --purple: #9c4a80; --heat: #5aa5d2; --link: #005f96;
  --font: "Segoe UI", Roboto, "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #14181c; --ink: #e6eaed; --muted: #a3aeb8; --grid: #3a434b; --tint: #1d2328;
    --shade: #a3aeb880;
    --blue: #56b4e9; --orange: #e69f00; --red: #ff8f4a; --green: #3ccb9f;
    --purple: #d98fbd; --heat: #2f5f82; --link: #7cc4f0;
  }
}
"""
"""The page's variables: colours by day and by night, and the font."""

_PAGE = """* { box-sizing: border-box; }
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
a { color: var(--link); }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.contents ol { display: flex; flex-wrap: wrap; gap: 2px 18px; list-style: none; padding: 0; max-width: none; }
.contents ol { margin: 4px 0 0; }
.contents a, .files a { display: inline-block; padding: 3px 0; min-height: 24px; }
.files { display: flex; flex-wrap: wrap; gap: 2px 18px; list-style: none; padding: 0; max-width: none; }
.tools { display: flex; flex-wrap: wrap; gap: 8px; margin: 4px 0 0; font-size: 13px; }
.tools button, .tools a { font: inherit; color: var(--link); background: var(--tint); cursor: pointer;
  border: 1px solid var(--grid); border-radius: 4px; padding: 4px 10px; min-height: 26px;
  text-decoration: none; }
th button { font: inherit; font-weight: inherit; color: inherit; background: none; border: 0; padding: 0;
  cursor: pointer; text-align: inherit; min-height: 24px; }
th button::after { content: " ↕"; }
th[aria-sort=ascending] button::after { content: " ↑"; }
th[aria-sort=descending] button::after { content: " ↓"; }
.tip { position: fixed; z-index: 2; left: 0; top: 0; pointer-events: none; max-width: 300px; padding: 4px 9px;
  font-size: 13px; color: var(--paper); background: var(--ink); border-radius: 4px; overflow-wrap: anywhere; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.hidden { white-space: nowrap; }
.skip:focus { position: static; width: auto; height: auto; clip-path: none; }
code { font: 0.92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.kicker { color: var(--muted); font-size: 13px; letter-spacing: .08em; text-transform: uppercase; margin: 0; }
.muted, figcaption, .facts dt, .legend dd { color: var(--muted); }
.notice { border-left: 4px solid var(--orange); background: var(--tint); padding: 8px 14px; margin: 10px 0; }
.short, .short li { font-size: 16px; max-width: 100ch; }
.facts { display: grid; gap: 10px 26px; grid-template-columns: repeat(auto-fill, minmax(235px, 1fr)); }
.facts { margin: 0; }
.facts dt { font-size: 13px; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 8px 0 12px; }
.scroll table { margin: 0; }
table { border-collapse: collapse; margin: 8px 0 12px; font-variant-numeric: tabular-nums; }
.caption { text-align: left; color: var(--muted); font-size: 13.5px; margin: 12px 0 4px; max-width: 100ch; }

th, td { padding: 5px 14px 5px 0; text-align: left; vertical-align: top; }
th, td { border-bottom: 1px solid var(--grid); }
th { font-weight: 600; }
thead th { font-size: 13px; color: var(--muted); vertical-align: bottom; border-bottom-width: 2px; }
td.num, th.num { text-align: right; padding: 5px 10px 5px 22px; white-space: nowrap; }
td.text { overflow-wrap: break-word; }
td.num + td.text, th.num + th.text { padding-left: 14px; }
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
figure { margin: 12px 0 22px; }
figcaption { font-size: 13.5px; max-width: 100ch; overflow-wrap: anywhere; }
.chart { display: none; width: 100%; height: auto; }
.small { display: block; max-width: 440px; }
"""

SHAPES = """.chart text { font: 13px var(--font); font-variant-numeric: tabular-nums; }
.chart .t-title { font-weight: 700; fill: var(--ink); }
.chart .t-red { font-weight: 700; fill: var(--red); }
.chart .t-halo { fill: var(--ink); stroke: var(--paper); stroke-width: 4px; paint-order: stroke; }
.t-ink, .t-cell { fill: var(--ink); } .t-muted { fill: var(--muted); }
.l { fill: none; }
.f-heat { fill: var(--heat); }
.pixels { image-rendering: pixelated; }
.f-ink { fill: var(--ink); } .s-ink { stroke: var(--ink); }
.f-muted { fill: var(--muted); } .s-muted { stroke: var(--muted); }
.f-grid { fill: var(--grid); } .s-grid { stroke: var(--grid); }
.f-paper { fill: var(--paper); } .s-paper { stroke: var(--paper); }
.f-blue { fill: var(--blue); } .s-blue { stroke: var(--blue); }
.f-orange { fill: var(--orange); } .s-orange { stroke: var(--orange); }
.f-red { fill: var(--red); } .s-red { stroke: var(--red); }
.f-green { fill: var(--green); } .s-green { stroke: var(--green); }
.f-purple { fill: var(--purple); } .s-purple { stroke: var(--purple); }
.m:hover, .m.on { filter: drop-shadow(0 0 2px var(--ink)); }
.chart * { stroke-linejoin: round; }
"""
"""Of drawings: text, lines, areas."""

_REST = """.triggered th, .triggered td { text-align: center; padding: 4px 6px; vertical-align: middle; }
.triggered th[scope=row] { text-align: left; padding-right: 14px; white-space: nowrap; }
.triggered img { width: 72px; height: 72px; image-rendering: pixelated; border: 1px solid var(--grid); }
.hit { color: var(--red); font-weight: 700; }
.right { color: var(--green); }
details { margin: 12px 0; }
summary { cursor: pointer; font-weight: 600; }
pre code { font-size: 1em; }
pre { background: var(--tint); padding: 12px 16px; font-size: 13px; line-height: 1.45; white-space: pre-wrap;
  overflow-wrap: anywhere; }
footer { margin-top: 48px; border-top: 1px solid var(--grid); padding-top: 10px; }
footer { color: var(--muted); font-size: 13px; }
@media screen and (min-width: 768px) and (max-width: 1119px), print {
  .small, .large { display: none; }
  .middle { display: block; max-width: 900px; }
}
@media screen and (min-width: 1120px) {
  .small, .middle { display: none; }
  .large { display: block; max-width: 1056px; }
}
@media screen and (max-width: 960px) {
  main { padding: 20px 16px 48px; }
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
  h2, h3, summary, .caption { break-after: avoid; }
  figure, table, .headline li, .notice { break-inside: avoid; }
  .scroll { overflow: visible; }
  td.text { overflow-wrap: anywhere; }
  .tools, .contents, .tip, .skip, .numbers, #keys { display: none; }
  table { font-size: 9pt; }
  td.num, th.num { white-space: normal; padding: 4px 4px 4px 8px; }
  th, td { padding-right: 8px; }
  a { color: inherit; text-decoration: none; }
  th button::after { content: ""; }
  h2 { break-before: auto; }
  article { break-inside: auto; }
  .triggered img { width: 46px; height: 46px; }
  details::details-content { content-visibility: visible; }
}
"""

STYLE_SHEET = COLOURS + _PAGE + SHAPES + _REST

"""Shows a page in Chromium, as wide as wanted, on screen or on paper, and measures what is to be seen of it.

The page is put into a frame of that width, as a browser's window has a least width. Chromium writes the
document back when the script in the frame's parent has measured it, so nothing but Chromium is needed, and
the axe-core that a package brings along. Its checks of a page (`audited`) need a script in the page itself,
so the page's policy is left out there.
"""

import html
import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--virtual-time-budget=4000",
)
_FILES = "--allow-file-access-from-files"
"""So that a page's measurer sees into a frame with another file."""
_PATIENCE = 15000
"""Milliseconds of its own clock that a page's scripts get."""
_LONGEST = 600
"""Seconds after which the browser hangs, however busy the machine is."""

_MEASURE = """
const frame = document.querySelector('iframe');
let shown = null;
let found = {};
const all = {};
const name = (node) => node.textContent.trim().slice(0, 60);
function visible(element) {
  const style = frame.contentWindow.getComputedStyle(element);
  return element.getClientRects().length > 0 && style.visibility !== 'hidden';
}
function scaleOf(element) {
  const matrix = element.ownerSVGElement ? element.getScreenCTM() : null;
  return matrix ? Math.hypot(matrix.a, matrix.b) : 1;
}
const pen = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
function rgba(colour) {
  pen.clearRect(0, 0, 1, 1);
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
}
const over = (top, below, a) => [0, 1, 2].map((i) => a * top[i] + (1 - a) * below[i]);
function light(colour) {
  const linear = (c) => c > .04045 ? ((c + .055) / 1.055) ** 2.4 : c / 12.92;
  const parts = colour.slice(0, 3).map((c) => linear(c / 255));
  return .2126 * parts[0] + .7152 * parts[1] + .0722 * parts[2];
}
function contrast(a, b) {
  const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
  return (x + .05) / (y + .05);
}
function behind(text, style) {
  const body = rgba(style(shown.body).backgroundColor), paper = over(body, [255, 255, 255], body[3]);
  const cell = text.classList.contains('t-cell') && text.previousElementSibling;
  if (!cell) return paper;
  return over(rgba(style(cell).fill), paper, parseFloat(style(cell).fillOpacity));
}
function check() {
  found = {small: [], cut: [], wide: [], overlapping: [], faint: [], broken: []};
  shown.querySelectorAll('details').forEach((element) => { element.open = true; });
  const width = frame.clientWidth;
  const whole = shown.documentElement.scrollWidth;
  if (whole > width) found.wide.push(`page: ${whole} px`);
  const walker = shown.createTreeWalker(shown.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    const hidden = element.closest('style, script, metadata') || !visible(element);
    if (!node.textContent.trim() || hidden) continue;
    const size = parseFloat(frame.contentWindow.getComputedStyle(element).fontSize) * scaleOf(element);
    if (size < LEAST) found.small.push(`${name(node)}: ${size.toFixed(1)} px`);
    const range = shown.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect(), svg = element.closest('svg');
    const screen = {left: 0, right: width, top: -Infinity, bottom: Infinity};
    const edge = svg ? svg.getBoundingClientRect() : screen;
    const scrolls = element.closest('.scroll') !== null;
    const word = /^\\w+$/.test(node.textContent.trim()), lines = range.getClientRects().length;
    if (word && lines > 1) found.broken.push(name(node));
    if (!scrolls && (box.left < edge.left - 1 || box.right > edge.right + 1 || box.top < edge.top - 1
        || box.bottom > edge.bottom + 1)) found.cut.push(name(node));
  }
  for (const svg of shown.querySelectorAll('svg')) {
    if (!visible(svg)) continue;
    const level = (text) => name(text) && Math.abs(text.getScreenCTM().b) < 1e-3;
    const style = (element) => frame.contentWindow.getComputedStyle(element);
    for (const text of svg.querySelectorAll('text')) {
      const ratio = contrast(rgba(style(text).fill), behind(text, style));
      if (ratio < 4.5) found.faint.push(`${name(text)}: ${ratio.toFixed(1)}`);
    }
    const texts = [...svg.querySelectorAll('text')].filter(level);
    const boxes = texts.map((t) => t.getBoundingClientRect());
    for (let i = 0; i < boxes.length; i++) for (let j = 0; j < i; j++) {
      const x = Math.min(boxes[i].right, boxes[j].right) - Math.max(boxes[i].left, boxes[j].left);
      const y = Math.min(boxes[i].bottom, boxes[j].bottom) - Math.max(boxes[i].top, boxes[j].top);
      if (x > 2 && y > 4) found.overlapping.push(`${name(texts[j])} | ${name(texts[i])}`);
    }
  }
  found.texts = shown.body.innerText.length;
  found.height = shown.documentElement.scrollHeight;
  all[width] = found;
}
function checkAll() {
  for (const width of WIDTHS) { frame.style.width = `${width}px`; check(); }
  document.body.dataset.found = JSON.stringify(all);
}
function whenLoaded() {
  shown = frame.contentDocument;
  if (shown.URL !== 'about:blank' && shown.readyState === 'complete') checkAll();
  else setTimeout(whenLoaded, 20);
}
whenLoaded();
"""


def measured(
    page: Path, width: int, *, dark: bool = False, least: float = 9.0, in_place: bool = False
) -> dict[str, Any]:
    """Return what of a page is too small, faint, cut, broken in a word, too wide, or over something else.

    Parameters
    ----------
    page
        An HTML file.
    width
        Of the screen, in CSS pixels.
    dark
        Whether the user prefers a dark page.
    least
        The smallest text that can be read, in CSS pixels.
    in_place
        Whether it is read where it lies, with the files beside it.
    """
    return measured_at(page, [width], dark=dark, least=least, in_place=in_place)[width]


def measured_at(
    page: Path, widths: Sequence[int], *, dark: bool = False, least: float = 9.0, in_place: bool = False
) -> dict[int, dict[str, Any]]:
    """Return the same at several widths of the screen, one after the other."""
    script = _MEASURE.replace("LEAST", str(least)).replace("WIDTHS", str(list(widths)))
    found = scripted(page if in_place else _read(page), widths[0], script, dark=dark)
    return {int(width): each for width, each in found.items()}


def scripted(content: str | Path, width: int, script: str, *, dark: bool = False) -> dict[str, Any]:
    """Return what a script finds of a page in a frame: the JSON that it puts into ``body.dataset.found``.

    A path is read where it lies, with the files beside it.
    """
    document = _run(
        _framed(content, width, 900, script), ["--dump-dom", *_reading(content)], dark=dark
    ).stdout
    match = re.search(r'<body[^>]* data-found="([^"]*)"', document)
    assert match, f"the page could not be measured: {document[-500:]}"
    found: dict[str, Any] = json.loads(html.unescape(match[1]))
    return found


_AUDIT = """
const frame = document.querySelector('iframe');
function whenLoaded() {
  const shown = frame.contentDocument;
  if (shown.URL !== 'about:srcdoc' || shown.readyState !== 'complete') { setTimeout(whenLoaded, 20); return; }
  shown.querySelectorAll('details').forEach((element) => { element.open = true; });
  const axe = frame.contentWindow.axe;
  axe.run(shown, {resultTypes: ['violations'], rules: {region: {enabled: false}}}).then((result) => {
    const why = (node) => (node.any[0] || node.all[0] || node.none[0]).message;
    const words = (node) => `${node.html.slice(0, 120)} (${why(node)})`;
    const found = result.violations.map((v) => [v.id, v.nodes.length, v.nodes.slice(0, 3).map(words)]);
    document.body.dataset.found = JSON.stringify({violations: found, passes: result.passes.length});
  });
}
whenLoaded();
"""


def audited(page: Path, width: int, *, dark: bool = False) -> dict[str, Any]:
    """Return the violations that axe-core finds in a page, and how many of its rules the page passes."""
    found = importlib.util.find_spec("axe_core_python")
    assert found is not None, "axe-core-python is not installed; it is one of .[dev]"
    assert found.origin
    axe = (
        (Path(found.origin).parent / "axe.min.js")
        .read_text(encoding="utf-8")
        .replace("</script", "<\\/script")
    )
    content = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", _read(page))
    content = content.replace("</body>", f"<script>{axe}</script></body>")
    return scripted(content, width, _AUDIT, dark=dark)


def printed(page: Path) -> Path:
    """Return a page whose style on screen is that on paper: A4 between margins of 14 mm is 688 px wide."""
    content = _read(page)
    style = re.findall(r"<style>.*?</style>", content, re.DOTALL)[0]
    paper = style.replace("@media print", "@media all").replace(", print {", ", all {")
    paper = re.sub(r"@media screen and", "@media (max-width: 0px) and", paper)
    content = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", content).replace(style, paper)
    target = page.with_name("printed.html")
    target.write_text(content, encoding="utf-8")
    return target


def pictured(page: Path, width: int, target: Path, *, dark: bool = False, in_place: bool = False) -> None:
    """Write a picture (PNG) of the whole page, for people."""
    height = int(measured(page, width, dark=dark, in_place=in_place)["height"]) + 20
    options = [f"--screenshot={target}", f"--window-size={max(width, 500)},{height}"]
    content = page if in_place else _read(page)
    _run(_framed(content, width, height, ""), [*options, *_reading(content)], dark=dark)


def opened(address: str) -> str:
    """Return what a page holds after its scripts have run, as HTML."""
    return _chromium([f"--virtual-time-budget={_PATIENCE}", "--dump-dom", address]).stdout


def _read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _reading(content: str | Path) -> list[str]:
    return [_FILES] if isinstance(content, Path) else []


def _framed(content: str | Path, width: int, height: int, script: str) -> str:
    if isinstance(content, Path):
        shown = f'src="{content.as_uri()}"'
    else:
        shown = f'srcdoc="{html.escape(content, quote=True)}"'
    return (
        '<!DOCTYPE html><html><head><meta charset="utf-8"></head><body style="margin:0">'
        f'<iframe {shown} style="border:0;width:{width}px;height:{height}px"></iframe>'
        f"<script>{script}</script></body></html>"
    )


def _run(document: str, options: list[str], *, dark: bool) -> subprocess.CompletedProcess[str]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(document, encoding="utf-8")
        scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        return _chromium([scheme, *options, path.as_uri()])


def _chromium(options: list[str]) -> subprocess.CompletedProcess[str]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "chromium is not installed; `make check` installs Debian's package of that name"
    with TemporaryDirectory() as folder:
        command = [chromium, *FLAGS, f"--user-data-dir={folder}/profile", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done

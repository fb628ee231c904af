"""Shows a page in Chromium, as wide as wanted, and measures what is to be seen of it.

The page is put into a frame of that width, as a browser's window has a least width. Chromium writes the
document back when the script in the frame's parent has measured it, so nothing but Chromium is needed.
"""

import html
import json
import re
import shutil
import subprocess
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
const found = {small: [], cut: [], wide: [], overlapping: []};
const name = (node) => node.textContent.trim().slice(0, 60);
function visible(element) {
  const style = frame.contentWindow.getComputedStyle(element);
  return element.getClientRects().length > 0 && style.visibility !== 'hidden';
}
function scaleOf(element) {
  const matrix = element.ownerSVGElement ? element.getScreenCTM() : null;
  return matrix ? Math.hypot(matrix.a, matrix.b) : 1;
}
function check() {
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
    if (size < 9) found.small.push(`${name(node)}: ${size.toFixed(1)} px`);
    const range = shown.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect(), svg = element.closest('svg');
    const screen = {left: 0, right: width, top: -Infinity, bottom: Infinity};
    const edge = svg ? svg.getBoundingClientRect() : screen;
    const scrolls = element.closest('.scroll') !== null;
    if (!scrolls && (box.left < edge.left - 1 || box.right > edge.right + 1 || box.top < edge.top - 1
        || box.bottom > edge.bottom + 1)) found.cut.push(name(node));
  }
  for (const svg of shown.querySelectorAll('svg')) {
    if (!visible(svg)) continue;
    const level = (text) => name(text) && Math.abs(text.getScreenCTM().b) < 1e-3;
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
  document.body.dataset.found = JSON.stringify(found);
}
function whenLoaded() {
  shown = frame.contentDocument;
  if (shown.URL !== 'about:blank' && shown.readyState === 'complete') check();
  else setTimeout(whenLoaded, 20);
}
whenLoaded();
"""


def measured(page: Path, width: int, *, dark: bool = False, in_place: bool = False) -> dict[str, Any]:
    """Return what of a page is too small, cut, wider than the screen, or written over something else.

    Parameters
    ----------
    page
        An HTML file.
    width
        Of the screen, in CSS pixels.
    dark
        Whether the user prefers a dark page.
    in_place
        Whether it is read where it lies, with the files beside it.
    """
    options = ["--dump-dom", *([_FILES] if in_place else [])]
    document = _run(_framed(page, width, 900, _MEASURE, in_place), options, dark=dark).stdout
    match = re.search(r'<body[^>]* data-found="([^"]*)"', document)
    assert match, f"the page could not be measured: {document[-500:]}"
    found: dict[str, Any] = json.loads(html.unescape(match[1]))
    return found


def pictured(page: Path, width: int, target: Path, *, dark: bool = False, in_place: bool = False) -> None:
    """Write a picture (PNG) of the whole page, for people."""
    height = int(measured(page, width, dark=dark, in_place=in_place)["height"]) + 20
    options = [f"--screenshot={target}", f"--window-size={max(width, 500)},{height}"]
    options += [_FILES] if in_place else []
    _run(_framed(page, width, height, "", in_place), options, dark=dark)


def opened(address: str) -> str:
    """Return what a page holds after its scripts have run, as HTML."""
    return _chromium([f"--virtual-time-budget={_PATIENCE}", "--dump-dom", address]).stdout


def _framed(page: Path, width: int, height: int, script: str, in_place: bool) -> str:
    content = html.escape(page.read_text(encoding="utf-8"), quote=True)
    shown = f'src="{page.as_uri()}"' if in_place else f'srcdoc="{content}"'
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

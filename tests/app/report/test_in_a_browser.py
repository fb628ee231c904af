"""Every kind of report as Chromium shows it, on a desk and on a phone, light and dark."""

from pathlib import Path
from typing import Any

import pytest

from app.report.page import write_report
from tests.app.report.kinds import KINDS
from tests.app.report.run_folders import add_log, add_rounds, finish, new_run
from tests.browser import audited, measured, measured_at, printed, scripted


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the pages, by kind."""
    return {kind: make(tmp_path_factory.mktemp(kind)) for kind, make in KINDS.items()}


WIDTHS = (390, 800, 1400)
READABLE = 12.0
"""The smallest text in CSS pixels, in figures as in the page."""
_PAPER = 688
"""Width in CSS pixels of A4 between the margins that the style sheet gives it."""


def nothing_wrong(found: dict[str, Any]) -> None:
    assert found["texts"] > 500
    kinds = ("small", "cut", "wide", "overlapping", "faint", "broken")
    assert {key: found[key] for key in kinds} == {key: [] for key in kinds}


@pytest.mark.check
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_cut_and_all_can_be_read(pages: dict[str, Path], kind: str, dark: bool) -> None:
    found = measured_at(pages[kind], WIDTHS, dark=dark, least=READABLE)
    assert tuple(found) == WIDTHS
    for each in found.values():
        nothing_wrong(each)


@pytest.mark.check
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_cut_on_paper(pages: dict[str, Path], kind: str) -> None:
    nothing_wrong(measured(printed(pages[kind]), _PAPER, least=11.0))


@pytest.mark.check
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1400, True)])
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing(pages: dict[str, Path], kind: str, width: int, dark: bool) -> None:
    found = audited(pages[kind], width, dark=dark)
    assert found["violations"] == []
    assert found["passes"] >= 20


@pytest.mark.check
def test_axe_sees_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<html><body><p style="color:#ccc">faint</p><img src="data:,"></body></html>')
    rules = {rule for rule, _, _ in audited(page, 390)["violations"]}
    assert {"color-contrast", "image-alt", "html-has-lang", "document-title"} <= rules


_USE = """
const frame = document.querySelector('iframe');
const shown = () => frame.contentDocument;
const key = (chart, name) => {
  chart.dispatchEvent(new frame.contentWindow.KeyboardEvent('keydown', {key: name, bubbles: true}));
  return shown().querySelector('.tip').textContent;
};
function use() {
  const found = {}, view = frame.contentWindow, Blob = view.Blob;
  view.Blob = function (parts, kind) { found.csv = parts.join(''); return new Blob(parts, kind); };
  const charts = [...shown().querySelectorAll('#learning .chart')];
  const chart = charts.find((element) => element.getClientRects().length);
  found.visible = charts.filter((element) => element.getClientRects().length).length;
  found.tips = ['ArrowRight', 'ArrowRight', 'ArrowLeft'].map((name) => key(chart, name));
  key(chart, 'Escape');
  found.gone = shown().querySelector('.tip').hidden;
  const table = shown().getElementById('clients');
  const column = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
  const head = table.tHead.rows[0].cells[0];
  const sorted = () => {
    head.querySelector('button').click();
    return [head.getAttribute('aria-sort'), column()];
  };
  found.sorted = [sorted(), sorted()];
  shown().querySelector('[data-table=clients]').click();
  view.HTMLCanvasElement.prototype.toBlob = function (then, kind) {
    found.png = [kind, this.width, this.toDataURL(kind).length > 5000];
    document.body.dataset.found = JSON.stringify(found);
  };
  found.viewBox = chart.viewBox.baseVal.width;
  chart.closest('figure').querySelector('[data-save=png]').click();
}
function whenLoaded() {
  if (shown().URL === 'about:srcdoc' && shown().readyState === 'complete') use();
  else setTimeout(whenLoaded, 20);
}
whenLoaded();
"""


@pytest.mark.check
@pytest.mark.parametrize("width", [390, 1400])
def test_values_are_pointed_at_tables_sorted_and_files_saved_under_the_pages_policy(
    tmp_path: Path, width: int
) -> None:
    folder = new_run(tmp_path)
    add_rounds(folder, 3)
    clients = ["9", "10", "=1+1"]
    add_log(folder, clients)
    finish(folder, clients)
    content = write_report(folder).read_text(encoding="utf-8")
    assert "Content-Security-Policy" in content
    found = scripted(content, width, _USE)
    assert found["visible"] == 1
    assert found["tips"] == [
        "test accuracy, round 1: 40.0 %",
        "test accuracy, round 2: 50.0 %",
        "test accuracy, round 1: 40.0 %",
    ]
    assert found["gone"]
    assert found["sorted"] == [
        ["ascending", ["9", "10", "=1+1"]],
        ["descending", ["=1+1", "10", "9"]],
    ]
    lines = found["csv"].lstrip("\ufeff").splitlines()
    assert lines[0] == 'client,examples,rounds,"share of all updates, %"'
    assert lines[1] == "'=1+1,12,2,41.7"  # norms 3, 4 and 5; a spreadsheet takes it for no formula
    assert found["png"] == ["image/png", 2 * found["viewBox"], True]


@pytest.mark.check
def test_the_measure_sees_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    chart = (
        '<svg viewBox="0 0 100 50" style="width:100px"><text x="5" y="20" font-size="8">small</text>'
        '<text x="80" y="40" font-size="12">cut off</text>'
        '<text x="78" y="40" font-size="12">x over</text></svg>'
    )
    broken = '<p style="width:20px;overflow-wrap:anywhere">finetune</p>'
    page.write_text(f'<body>{chart}<p style="width:900px">wide</p>{broken}</body>')
    found = measured(page, 390)
    assert found["small"] == ["small: 8.0 px"]
    assert found["cut"] == ["cut off", "x over"]
    assert found["overlapping"] == ["cut off | x over"]
    assert found["wide"]
    assert found["broken"] == ["finetune"]
    page.write_text('<style>text { fill: #999 }</style><svg><text y="20" font-size="14">faint</text></svg>')
    assert measured(page, 390)["faint"] == ["faint: 2.8"]

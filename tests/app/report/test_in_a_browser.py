"""Every kind of report as Chromium shows it, on a desk and on a phone, light and dark."""

from pathlib import Path

import pytest

from tests.app.report.kinds import KINDS
from tests.browser import measured


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the pages, by kind."""
    return {kind: make(tmp_path_factory.mktemp(kind)) for kind, make in KINDS.items()}


@pytest.mark.check
@pytest.mark.parametrize(
    ("width", "dark"), [(1200, False), (1200, True), (700, False), (390, False), (390, True)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_cut_and_all_can_be_read(
    pages: dict[str, Path], kind: str, width: int, dark: bool
) -> None:
    found = measured(pages[kind], width, dark=dark)
    assert found["texts"] > 500
    assert {key: found[key] for key in ("small", "cut", "wide", "overlapping")} == {
        "small": [],
        "cut": [],
        "wide": [],
        "overlapping": [],
    }


@pytest.mark.check
def test_the_measure_sees_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    chart = (
        '<svg viewBox="0 0 100 50" style="width:100px"><text x="5" y="20" font-size="8">small</text>'
        '<text x="80" y="40" font-size="12">cut off</text>'
        '<text x="78" y="40" font-size="12">x over</text></svg>'
    )
    page.write_text(f'<body>{chart}<p style="width:900px">wide</p></body>')
    found = measured(page, 390)
    assert found["small"] == ["small: 8.0 px"]
    assert found["cut"] == ["cut off", "x over"]
    assert found["overlapping"] == ["cut off | x over"]
    assert found["wide"]

"""The documentation as a site: every page has a place, nothing comes from elsewhere, search works."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from docs import site
from tests.browser import measured, opened

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LATER = {"training.md", "runs.md", "watch.md", "use.md"}
"""Pages that have a place, and are shown as soon as they are there."""
LOADING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}
"""Elements that load something, and the attribute that says what."""


def placed() -> list[str]:
    """Return the paths of all pages of the nav, in its order."""
    each = [[pages] if isinstance(pages, str) else [path for _, path in pages] for pages in site.NAV.values()]
    return [path for paths in each for path in paths]


def test_every_page_has_one_place() -> None:
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    made = {site.FIRST, *site.generated()}
    assert len(placed()) == len(set(placed()))
    assert there | made <= set(placed())
    assert set(placed()) - there - made <= LATER


def test_the_sections_stand_in_the_order_in_which_a_reader_needs_them() -> None:
    assert list(site.NAV) == [
        "Start",
        "Five minutes",
        "Your own work",
        "Forgetting explained",
        "Deployment",
        "Privacy and threats",
        "How do I …?",
        "Reference",
        "Evidence and benchmarks",
        "How it is built",
    ]
    questions = [title for title, _ in site.NAV["How do I …?"]]
    assert [title for title in questions if not title.endswith("?")] == []


def test_the_readme_is_the_first_page_with_links_that_hold_in_the_site() -> None:
    page = site.first_page()
    links = [link for link in re.findall(r"\]\(([^)#]+)", page) if "://" not in link]
    assert len(links) > 10
    assert [link for link in links if not (DOCS / link).is_file()] == []
    assert page.count("\n") == (ROOT / "README.md").read_text(encoding="utf-8").count("\n")


class Loaded(HTMLParser):
    """Collects what a page loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("rel") not in {"canonical", "next", "prev"} and (
            place := given.get(LOADING.get(tag, ""))
        ):
            self.found.append(place)


def elsewhere(path: Path) -> list[str]:
    """Return what a page or a style sheet loads from another machine."""
    text = path.read_text(encoding="utf-8")
    found = Loaded(text).found if path.suffix == ".html" else []
    found += re.findall(r"url\(['\"]?([^'\")]+)|@import ['\"]([^'\"]+)", text) and [
        place
        for pair in re.findall(r"url\(['\"]?([^'\")]+)|@import ['\"]([^'\"]+)", text)
        for place in pair
        if place
    ]
    return [place for place in found if re.match(r"(https?:)?//", place)]


def test_what_is_loaded_from_elsewhere_is_found(tmp_path: Path) -> None:
    page, sheet = tmp_path / "a.html", tmp_path / "a.css"
    page.write_text('<a href="https://a.b/c">x</a><script src="//a.b/c.js"></script><img src="d.png">')
    sheet.write_text("@import 'https://a.b/f.css'; a { background: url(https://a.b/g.png) }")
    assert elsewhere(page) == ["//a.b/c.js"]
    assert elsewhere(sheet) == ["https://a.b/f.css", "https://a.b/g.png"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the site, built as `make docs` does; any warning fails."""
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return place


@pytest.mark.check
def test_the_site_loads_nothing_from_elsewhere(built: Path) -> None:
    files = [path for path in built.rglob("*") if path.suffix in {".html", ".css"}]
    assert len(files) > 40
    assert {path.name: places for path in files if (places := elsewhere(path))} == {}


@pytest.mark.check
def test_the_picture_of_a_method_and_the_demo_s_are_there_and_no_source_is(built: Path) -> None:
    assert (built / "forgetting" / "subtract.svg").is_file()
    assert (built / "demo.png").is_file()
    assert (built / "notebook.ipynb").is_file()
    assert list(built.glob("*.py")) == []


@pytest.mark.check
def test_search_finds_a_word_in_a_site_opened_from_the_disk(built: Path) -> None:
    shown = opened(f"{(built / 'index.html').as_uri()}?q=purge")
    assert re.search(r"md-search-result__meta\">\d+ matching documents<", shown)
    assert "methods.html" in shown.partition("md-search-result__list")[2]


@pytest.mark.check
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("page", ["index", "five-minutes", "forgetting", "reference/python"])
def test_a_page_fits_the_screen(built: Path, page: str, width: int, dark: bool) -> None:
    found = measured(built / f"{page}.html", width, dark=dark, in_place=True)
    assert (found["wide"], found["small"], found["overlapping"]) == ([], [], [])
    assert found["texts"] > 2000

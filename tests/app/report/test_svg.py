"""app/report/svg.py: drawings become parts of a page."""

import re
from functools import partial

import pytest

from app.report import svg as report_svg
from app.report.svg import BLUE, MARKERS, WIDTHS, Drawing, Pen, short_label


def drawing(label: str = "client", description: str = "a line") -> str:
    found = Drawing(100.0)
    found.path([(0, 0), (10.25, 20)], Pen(BLUE))
    found.telling(f"value of {label}", partial(found.mark, 10, 20, Pen(BLUE, "o")))
    found.text(1, 2, label)
    found.height = 50.0
    return found.svg("small", description)


def test_colours_come_from_the_page_by_class_as_a_strict_policy_forbids_inline_styles() -> None:
    svg = drawing()
    assert 'class="l s-blue"' in svg
    assert 'class="f-blue s-paper"' in svg
    assert "style=" not in svg
    assert "http" not in svg
    assert " id=" not in svg


def test_the_text_alternative_and_words_to_point_at_are_escaped() -> None:
    svg = drawing("<b>&", '"><script>')
    assert 'role="img"' in svg
    assert 'aria-label="&#34;&gt;&lt;script&gt;"' in svg
    assert "<title>value of &lt;b&gt;&amp;</title>" in svg
    assert "<script" not in svg


@pytest.mark.parametrize("label", [r"$\frac{", "<script>alert(1)</script>", "日本", "a & b"])
def test_a_label_is_text_whatever_it_holds(label: str) -> None:
    svg = drawing(label)
    assert label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in svg
    assert "<script" not in svg


def test_numbers_have_no_needless_digits() -> None:
    assert [report_svg._n(x) for x in (1.0, 0.126, -0.001, 100.0)] == ["1", "0.13", "0", "100"]


@pytest.mark.parametrize("marker", MARKERS)
def test_every_marker_is_drawn(marker: str) -> None:
    found = Drawing(10.0)
    found.mark(5, 5, Pen(BLUE, marker))
    assert re.search(r'<(circle|path) (cx="5"|d="M[-\d.]+ [-\d.]+L)', found.svg("small", ""))


def test_a_control_character_has_no_place_in_a_label() -> None:
    assert short_label("a\x1b[2J\nb") == "a·[2J b"
    assert ">a·[2J b</text>" in drawing("a\x1b[2J\nb")


def test_a_label_of_just_the_length_stays() -> None:
    full = "x" * report_svg._LABEL_LENGTH
    assert short_label(full) == full
    assert short_label(full + "y") == full[:-1] + "…"


def test_a_figure_is_drawn_for_three_widths() -> None:
    seen = []

    def draw(empty: Drawing) -> float:
        seen.append(empty.is_narrow)
        return 40.0

    picture = report_svg.drawn(draw, "one", "all")
    sizes = re.findall(
        r'class="chart (\w+)" .*?viewBox="0 0 (\d+) 40" width="(\d+)" height="40"', picture.svg
    )
    assert sizes == [(form, str(width), str(width)) for form, width in WIDTHS.items()]
    assert seen == [True, False, False]

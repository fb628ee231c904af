"""app/report/svg.py: figures become parts of a page."""

import re

import pytest
from matplotlib.figure import Figure

from app.report import svg as report_svg
from app.report.svg import BLUE, Sheet, plain, short_label, style_axes, to_svg


def drawn(name: str = "one", label: str = "client", description: str = "a line") -> str:
    figure = Sheet(narrow=False).figure(2.0)
    axes = figure.subplots()
    style_axes(axes, "title")
    axes.plot([0, 1], [1, 2], color=BLUE)
    axes.set_yticks([1, 2], [label, "other"])
    for text in axes.get_yticklabels():
        plain(text)
    return str(to_svg(figure, name, description))


def test_colours_and_font_come_from_the_page() -> None:
    svg = drawn()
    assert "var(--blue)" in svg
    assert "var(--font)" in svg
    assert not re.search(r"#0101\d\d|DejaVu", svg)


def test_nothing_points_outside() -> None:
    svg = drawn()
    assert svg.startswith("<svg ")
    assert "http" not in svg
    assert "<metadata" not in svg
    assert "<style" not in svg  # a style sheet inside would hold for the whole page
    assert all(target.startswith("#one-") for target in re.findall(r'href="([^"]*)"', svg))


def test_ids_are_unique_between_figures_and_references_hit() -> None:
    first, second = drawn("one"), drawn("two")
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (first, second)]
    assert not ids[0] & ids[1]
    for svg, known in zip((first, second), ids, strict=True):
        references = re.findall(r'(?:url\(|href=")#([^")]+)', svg)
        assert references
        assert set(references) <= known


def test_same_figure_same_text() -> None:
    assert drawn() == drawn()


def test_description_is_the_text_alternative_and_escaped() -> None:
    svg = drawn(description='"><script>')
    assert 'role="img"' in svg
    assert 'aria-label="&#34;&gt;&lt;script&gt;"' in svg
    assert "<script" not in svg


@pytest.mark.parametrize("label", [r"$\frac{", "<script>alert(1)</script>", "日本", "a & b"])
def test_a_label_is_text_whatever_it_holds(label: str) -> None:
    """Neither a formula, which fails for the first, nor markup, nor a warning about a missing glyph."""
    svg = drawn(label=label)
    assert label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in svg
    assert "<script" not in svg


def test_a_control_character_has_no_place_in_a_label() -> None:
    assert short_label("a\x1b[2J\nb") == "a·[2J b"


def test_a_label_of_just_the_length_stays() -> None:
    full = "x" * report_svg._LABEL_LENGTH
    assert short_label(full) == full
    assert short_label(full + "y") == full[:-1] + "…"


def test_a_figure_is_drawn_for_desks_and_for_phones_with_panels_below_each_other() -> None:
    """Both have text of the same size in points; the narrow one is a third as wide, and higher."""

    def draw(sheet: Sheet) -> Figure:
        figure, panels = sheet.panels(2.0, [3, 2])
        for axes in panels:
            style_axes(axes, "title")
        return figure

    wide, narrow = (f"<svg {part}" for part in report_svg.drawn(draw, "one", "both").svg.split("<svg ")[1:])
    assert 'class="chart wide"' in wide
    assert 'class="chart narrow"' in narrow
    boxes = [
        [float(x) for x in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0]] for svg in (wide, narrow)
    ]
    assert boxes == [[748.8, 144.0], [259.2, 288.0]]
    assert not set(re.findall(r' id="([^"]+)"', wide)) & set(re.findall(r' id="([^"]+)"', narrow))

"""app/report/heat_map.py: cells, sums and names, whatever the size."""

import re

import numpy as np
import pytest

from app.report.heat_map import HeatMap, Matrix, draw_map
from app.report.svg import Drawing


def found(values: Matrix, **changes: object) -> HeatMap:
    rows = [f"r{i}" for i in range(values.shape[0])]
    columns = [f"c{i}" for i in range(values.shape[1])]
    given = {"title": "Counts", "values": values, "rows": rows, "columns": columns, "first": "row"}
    return HeatMap(**{**given, "along": "column", "told": lambda v: f"{v:.0f}", **changes})  # type: ignore[arg-type]


def svg(heat: HeatMap, width: float = 736.0) -> str:
    drawing = Drawing(width)
    drawing.height = draw_map(drawing, heat)
    return drawing.svg("small", "")


def test_the_largest_cell_is_darkest_and_an_empty_one_has_a_dash() -> None:
    """0.06 + 0.94 · 2/4 = 0.53 of the colour for half of the largest; sums are 6 and 0."""
    text = svg(found(np.array([[2.0, 4.0], [0.0, np.nan]])))
    assert 'fill-opacity="0.53"' in text
    assert text.count('class="f-heat"') == 4
    assert text.count(">–</text>") == 2
    assert "<title>row r0, column c1: 4</title>" in text
    assert "<title>row r1, column c0: –</title>" in text
    assert "<title>row r0, sum: 6</title>" in text


def test_marked_rows_are_named_in_red_with_their_marks_but_on_a_phone() -> None:
    heat = found(np.ones((2, 2)), marks={1: "attacker"})
    assert re.search(r'class="t-red"[^>]*>r1  attacker ▸<', svg(heat))
    assert re.search(r'class="t-red"[^>]*>r1 ▸<', svg(heat, 358.0))


@pytest.mark.parametrize("shape", [(1, 1), (200, 100), (3, 1000), (1000, 3)])
def test_a_map_of_any_size_stays_within_its_drawing(shape: tuple[int, int]) -> None:
    for width in (358.0, 1056.0):
        text = svg(found(np.ones(shape)), width)
        assert len(text) < 400_000
        places = [float(x) for x in re.findall(r'<(?:rect|text|image) x="([-\d.]+)"', text)]
        assert all(-0.01 <= place <= width for place in places)


def test_many_cells_are_one_picture_and_the_table_has_the_sums() -> None:
    heat = found(np.ones((60, 60)))
    assert "data:image/png;base64," in svg(heat)
    assert heat.table().columns == ("Sum",)
    assert heat.table().rows[0].cells == ("60",)
    assert found(np.ones((2, 2))).table().columns == ("c0", "c1", "Sum")

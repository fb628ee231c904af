"""app/report/axes.py: spans, ticks, and where a value lies."""

import math

import pytest
from hypothesis import given, strategies as st

from app.report.axes import Axes, Box, Curve, Span, curves_panel, panels
from app.report.svg import BLUE, Drawing, Pen

numbers = st.floats(-1e6, 1e6, allow_nan=False)


def test_a_value_lies_between_the_ends_of_its_axis() -> None:
    """10 px from the left, 100 px wide: 25 of 0 to 100 lies at 35; y goes up from 60 to 20."""
    axes = Axes(Drawing(200), Box(10.0, 20.0, 100.0, 40.0), Span(0.0, 100.0), Span(0.0, 2.0))
    assert axes.x(25.0) == 35.0
    assert axes.y(0.5) == 50.0


@given(numbers, numbers, st.integers(2, 12))
def test_ticks_are_within_the_span_and_not_too_many(one: float, other: float, most: int) -> None:
    span = Span(min(one, other), max(one, other))
    ticks = span.ticks(most)
    wide = span.high - span.low
    assert len(ticks) <= most + 1
    assert all(span.low - 1e-6 * wide <= tick <= span.high + 1e-6 * wide for tick in ticks)
    assert ticks == sorted(ticks)


def test_ticks_of_a_tiny_span_are_no_zeros() -> None:
    assert Span(-3e-90, -1e-90).ticks(3) == [-3e-90, -2e-90, -1e-90]


def test_ticks_of_rounds_are_whole() -> None:
    assert Span(1, 2).ticks(6, whole=True) == [1.0, 2.0]
    assert Span(1, 15).ticks(4, whole=True) == [5.0, 10.0, 15.0]
    assert Span(3, 3).ticks() == [3]


def test_a_span_leaves_out_what_is_not_finite() -> None:
    assert Span.over([math.nan, 1.0, 3.0], margin=0.0) == Span(1.0, 3.0)
    assert Span.over([]) == Span(0.0, 1.0)
    assert Span.over([5.0]) == Span(4.5, 5.5)
    assert Span.over([5.0, 6.0], at_least=4.0, margin=0.0) == Span(3.5, 7.5)
    assert Span(0.5, 2.0).from_zero([0.6, 2.0]) == Span(0.0, 2.0)
    assert Span(1.5, 2.0).from_zero([1.6, 2.0]) == Span(1.5, 2.0)


def test_panels_stand_beside_each_other_and_on_a_phone_below() -> None:
    def boxes(width: float) -> list[Box]:
        seen: list[Box] = []

        def draw(_: int, box: Box) -> float:
            seen.append(box)
            return box.top + 100.0

        assert panels(Drawing(width), [2, 1], 80.0, draw) == (100.0 if width > 500 else 214.0)
        return seen

    assert [(box.left, box.top, box.width) for box in boxes(334.0)] == [(0, 0, 334), (0, 114, 334)]
    assert [(box.left, box.width) for box in boxes(934.0)] == [(0.0, 600.0), (634.0, 300.0)]


@pytest.mark.parametrize("count", [1, 60, 1000])
def test_long_curves_have_few_points_to_go_through(count: int) -> None:
    drawing = Drawing(736.0)
    points = [(float(i), float(i)) for i in range(count)]
    curves_panel(drawing, Box(0, 0, 736, 200), [Curve("one", points, Pen(BLUE, "o"))], "title")
    assert 1 <= drawing.svg("middle", "").count("<title>") <= 60

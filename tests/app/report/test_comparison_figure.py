"""Rates beside each other and disparity against time, whatever was measured."""

from typing import Any

import pytest

from app.report.comparison_figure import _span, picture
from tests.app.report.test_comparison_tables import comparison, figures, spread


def test_every_model_is_named_in_the_picture() -> None:
    svg = str(picture(comparison(), "c").svg)
    for name in ("before", "retrained", "quick", "slow"):
        assert f">{name}<" in svg


def test_the_caption_says_who_is_closest_and_who_is_fastest() -> None:
    caption = picture(comparison(), "c").caption
    assert "closest to retrained is quick with a disparity of 1.0 points in 0.50 s" in caption
    assert "Retraining took 4.0 s" in caption


def test_a_rates_axis_shows_all_values_and_at_least_five_points() -> None:
    """98 to 99 is shown as 96 to 101, moved down to end at 100; 20 to 80 as it is."""
    assert _span([98.0, None, 99.0]) == (95.0, 100.0)
    assert _span([20.0, 80.0]) == (20.0, 80.0)
    assert _span([0.0, 0.0]) == (0.0, 5.0)
    assert _span([50.25, 50.75]) == (48.0, 53.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"methods": {}},
        {"methods": {"failed": {}}},
        {"methods": {f"method-{i}": figures(90.0 + i / 10, 1.0 * i, 0.1 * i + 0.1, 0.0) for i in range(14)}},
        {"methods": {"flat": figures(90.0, 0.0, 1e-4, 0.0) | {"test_accuracy": spread(None)}}},
    ],
)
def test_it_is_drawn_from_whatever_there_is(changes: dict[str, Any]) -> None:
    assert str(picture(comparison(**changes), "c").svg).startswith("<svg")


def test_two_on_one_page_have_ids_of_their_own() -> None:
    first, second = (str(picture(comparison(), name).svg) for name in ("one", "two"))
    assert 'id="one-' in first
    assert 'id="one-' not in second

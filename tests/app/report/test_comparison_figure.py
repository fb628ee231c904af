"""Rates beside each other and disparity against time, whatever was measured."""

from typing import Any

import pytest

from app.report.comparison_figure import Gap, _reach, floor_of, gaps_of, half_interval, picture
from app.report.comparison_tables import OTHER_SEED
from tests.app.report.test_comparison_tables import comparison, figures, spread


def test_every_model_is_named_in_the_picture() -> None:
    svg = str(picture(comparison(), "c").svg)
    for name in ("before", "quick", "slow"):
        assert f">{name}<" in svg
    assert ">retrained<" not in svg  # it is the zero of every scale


def test_an_interval_is_students() -> None:
    """3 seeds: t with 2 degrees of freedom is 4.303, so 4.303 · 2 / √3; 2 seeds: 12.706 · 2 / √2."""
    assert half_interval(2.0, 3) == pytest.approx(4.303 * 2 / 3**0.5, rel=1e-3)
    assert half_interval(2.0, 2) == pytest.approx(12.706 * 2 / 2**0.5, rel=1e-3)
    assert half_interval(2.0, 100) == pytest.approx(1.984 * 2 / 10, rel=1e-3)
    assert half_interval(2.0, 1) is None
    assert half_interval(None, 5) is None


def test_a_gap_stands_with_its_interval_in_the_table_and_at_the_dot() -> None:
    found = {"test_accuracy_gap": {"mean": -1.0, "std": 0.5}, "disparity": {"mean": 2.0, "std": None}}
    gaps = gaps_of(found, 4)
    assert gaps["test_accuracy"].half == pytest.approx(3.182 * 0.5 / 2, rel=1e-3)
    assert (gaps["test_accuracy"].mean, gaps["disparity"]) == (-1.0, Gap(2.0, None))
    told = {"disparity": {"mean": 2.0, "std": 9.0, "low": 1.5, "high": 2.5}}
    assert gaps_of(told, 4) == {"disparity": Gap(2.0, 0.5)}
    assert gaps["test_accuracy"].words == "−1.0 (95 %: −1.8 to −0.2)"
    assert gaps["disparity"].words == "+2.0"


def test_the_floor_is_how_far_other_seeds_lie_apart() -> None:
    """A mean of 3 and a deviation of 4 have a root mean square of 5; it is no method of its own."""
    other = figures(90.0, 1.0, 0.1, 0.0) | {"test_accuracy_gap": {"mean": 3.0, "std": 4.0}}
    document = comparison(methods={"quick": figures(90.0, 1.0, 0.1, 0.0), OTHER_SEED: other})
    assert floor_of(document)["test_accuracy"] == 5.0
    found = picture(document, "c")
    assert "TA, floor: 5.0 points" in found.svg
    assert f">{OTHER_SEED}<" not in found.svg
    assert found.table is not None
    assert [row.label for row in found.table.rows] == ["before", "quick", "floor"]
    assert floor_of(comparison()) == {}


def test_gaps_in_two_groups_have_a_dot_each_and_no_interval() -> None:
    two = {"mean": None, "std": None, "listed": True, "values": [[80.0], [7.0], [82.0]]}
    gaps = gaps_of({"test_accuracy_gap": two}, 3)
    assert gaps == {"test_accuracy": Gap(80.0, None, (7.0, 80.0, 82.0))}
    assert gaps["test_accuracy"].words == "+7.0, +80.0 and +82.0 (in two groups)"
    one = {"test_accuracy_gap": {"mean": 80.0, "std": None}}
    drawn = [
        picture(comparison(methods={"odd": found}), "c").svg for found in ({"test_accuracy_gap": two}, one)
    ]
    assert drawn[0].count("<circle") > drawn[1].count("<circle")


def test_what_lies_beyond_the_scale_is_written_at_its_edge() -> None:
    far = {f"method-{i}": figures(90.0, 1.0, 0.1, 0.0) for i in range(9)}
    lost = figures(10.0, 80.0, 0.1, 0.0) | {"test_accuracy_gap": {"mean": -80.0, "std": None}}
    svg = picture(comparison(methods={**far, "lost": lost}), "c").svg
    assert "◂ −80.0" in svg


def test_the_scale_shows_five_points_at_least_and_ends_at_a_round_number() -> None:
    assert _reach({"a": {"disparity": Gap(0.1, None)}}, {}) == 5.0
    assert _reach({"a": {"disparity": Gap(8.0, 2.0)}}, {}) == 20.0
    assert _reach({"before": {"disparity": Gap(80.0, None)}}, {"disparity": 6.0}) == 10.0


def test_where_the_attacker_only_guesses_the_disparity_leaves_mia_out() -> None:
    found = comparison(mia_counts=False)
    for name, far in {"slow": 0.1, "quick": 0.9}.items():
        found["methods"][name]["disparity_without_mia"] = {"mean": far, "std": None}
    drawn = picture(found, "x")
    assert "closest to retrained is slow with a disparity of 0.1 points" in drawn.caption
    assert "The disparity leaves MIA out, as its attacker only guesses." in drawn.caption
    assert drawn.table is not None
    assert {row.label: row.cells[0] for row in drawn.table.rows}["quick"] == "+0.9"


def test_the_caption_says_who_is_closest_and_who_is_fastest() -> None:
    caption = picture(comparison(), "c").caption
    assert "closest to retrained is quick with a disparity of 1.0 points in 0.50 s" in caption
    assert "Retraining took 4.0 s" in caption


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

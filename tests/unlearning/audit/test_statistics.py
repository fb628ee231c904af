"""unlearning/audit/statistics.py: against tables, scipy, and what a mean must not describe."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from unlearning.audit.statistics import components, estimate, holm, in_two_groups


def test_an_interval_by_hand() -> None:
    """Of 1, 2 and 6: mean 3, standard error √7/√3, t with 2 degrees of freedom 4.303."""
    found = estimate([1.0, 2.0, 6.0])
    assert found is not None
    assert (found.mean, found.count) == (3.0, 3)
    assert found.high - 3.0 == pytest.approx(4.3027 * math.sqrt(7 / 3), rel=1e-4)
    assert found.high - 3.0 == pytest.approx(3.0 - found.low)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=8).filter(lambda found: np.ptp(found) > 1e-3))
def test_the_p_value_is_that_of_a_one_sample_t_test(values: list[float]) -> None:
    found = estimate(values)
    assert found is not None
    assert found.p_value == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue, abs=1e-9)
    assert (found.p_value < 0.05) == (not found.low <= 0.0 <= found.high)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.0], 1.0),
        ([2.0, 2.0], 0.5),
        ([0.3, 0.1 + 0.2], 0.5),  # Equal but for rounding
        ([-100.0 / 30] * 5, 2 / 2**5),
        ([2.0] * 6, 2 / 2**6),
    ],
)
def test_values_without_a_spread_are_judged_by_their_signs(values: list[float], expected: float) -> None:
    """Two seeds with one example more each are no certainty: of n equal signs, chance gives 2 in 2ⁿ."""
    found = estimate(values)
    assert found is not None
    assert found.p_value == pytest.approx(expected)
    assert estimate([3.0]) is None


def test_holm_by_hand() -> None:
    """Of 0.01, 0.04, 0.03, 0.005: 4 · 0.005, 3 · 0.01, 2 · 0.03, and 0.04 no less than that."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_at_least_each_and_at_most_bonferroni_in_the_same_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for raw, found in zip(p_values, adjusted, strict=True):
        assert raw <= found <= min(1.0, len(p_values) * raw) + 1e-12
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)


@pytest.mark.parametrize(
    ("values", "two"),
    [
        ([7.0, 87.0], True),
        ([0.5, 0.7, 99.0, 98.5], True),
        ([80.0, 7.0, 82.0, 81.0, 79.0], True),
        ([0.0, 9.9], False),  # Closer than 10 points
        ([40.0, 50.0, 62.0], False),  # Wide, but even
        ([0.0, 20.0, 31.0], False),  # A gap of 20 beside 11
        ([5.0], False),
        ([], False),
    ],
)
def test_what_lies_in_two_groups(values: list[float], two: bool) -> None:
    assert in_two_groups(values) is two
    assert in_two_groups(values[::-1]) is two


def test_values_of_one_law_hardly_ever_lie_in_two_groups() -> None:
    """Normal values with a deviation of 3 points, five of them: fewer than one in a hundred."""
    generator = np.random.default_rng(0)
    found = sum(in_two_groups(list(generator.normal(50, 3, 5))) for _ in range(1000))
    assert found < 10


def test_components_of_a_simulated_design_are_those_that_it_was_made_with() -> None:
    """Deviations of 3 between 400 seeds, and of 1 within."""
    generator = np.random.default_rng(1)
    seeds = generator.normal(0, 3, (400, 1)) + generator.normal(0, 1, (400, 3))
    between, within = components(seeds.tolist())
    assert between == pytest.approx(3.0, rel=0.1)
    assert within == pytest.approx(1.0, rel=0.1)
    assert components([[1.0], [2.0]]) == (pytest.approx(math.sqrt(0.5)), None)

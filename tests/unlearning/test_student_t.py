"""unlearning/student_t.py: against scipy, and the integral of the density."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from unlearning.student_t import SMALLEST, quantile, two_sided, upper_tail


@given(t=st.floats(-30, 30), degrees=st.integers(1, 60))
def test_students_distribution_is_that_of_scipy(t: float, degrees: int) -> None:
    """Near 0 scipy loses t beside the degrees; there the tail is ½ less the density at 0 times t."""
    rest = 1 - 2 * stats.t.pdf(0, degrees) * abs(t)
    expected = 2 * stats.t.sf(abs(t), degrees) if abs(t) > 1e-4 else rest
    assert two_sided(t, degrees) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 30])
def test_its_quantiles_are_those_of_scipy(degrees: int) -> None:
    assert quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-9)


def test_the_tail_is_the_integral_of_the_density() -> None:
    """By the trapezoidal rule, over x = tan of an angle: the density turns into cos^{ν−1}."""
    for freedom in (1, 2, 3, 8, 31):
        angles = np.linspace(math.atan(1.7 / math.sqrt(freedom)), math.pi / 2, 20_001)
        heights = np.cos(angles) ** (freedom - 1)
        half = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
        wanted = half * float(((heights[1:] + heights[:-1]) / 2).sum() * (angles[1] - angles[0]))
        found = upper_tail(np.array([1.7, -1.7, 1e9]), np.array(3 * [freedom]))
        assert found[0] == pytest.approx(wanted, rel=1e-6)
        assert found[1] == pytest.approx(1 - wanted, rel=1e-6)
        assert found[2] >= SMALLEST

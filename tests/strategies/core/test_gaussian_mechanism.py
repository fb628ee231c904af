"""strategies/core/gaussian_mechanism.py: by hand, and where it is 0 or 1."""

import math

import pytest
from hypothesis import given, strategies as st

from strategies.core.gaussian_mechanism import largest_ratio, least_delta


def test_the_least_delta_by_hand() -> None:
    """With ε → 0 it is the total variation 2Φ(ratio/2) − 1; far apart it is 1, together 0."""
    assert least_delta(1e-9, 1.0) == pytest.approx(math.erf(0.5 / math.sqrt(2)), abs=1e-6)
    assert least_delta(1.0, 200.0) == pytest.approx(1.0)
    assert least_delta(1.0, 0.0) == 0.0
    assert least_delta(50.0, 0.1) == 0.0


@given(st.floats(0.01, 30), st.floats(1e-9, 0.3))
def test_the_largest_ratio_is_the_largest(epsilon: float, delta: float) -> None:
    ratio = largest_ratio(epsilon, delta)
    assert least_delta(epsilon, ratio) <= delta < least_delta(epsilon, ratio * 1.001)


def test_the_classical_bound_asks_for_more_noise() -> None:
    """Dwork and Roth: Δ/σ = ε / √(2 ln(1.25/δ)), for ε below 1."""
    for epsilon in (0.1, 0.5, 0.9):
        assert largest_ratio(epsilon, 1e-5) > epsilon / math.sqrt(2 * math.log(1.25 / 1e-5))

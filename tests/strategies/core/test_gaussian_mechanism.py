"""strategies/core/gaussian_mechanism.py: by hand, and where it is 0 or 1."""

import math

import pytest

from strategies.core.gaussian_mechanism import least_delta


def test_the_least_delta_by_hand() -> None:
    """With ε → 0 it is the total variation 2Φ(ratio/2) − 1; far apart it is 1, together 0."""
    assert least_delta(1e-9, 1.0) == pytest.approx(math.erf(0.5 / math.sqrt(2)), abs=1e-6)
    assert least_delta(1.0, 200.0) == pytest.approx(1.0)
    assert least_delta(1.0, 0.0) == 0.0
    assert least_delta(50.0, 0.1) == 0.0

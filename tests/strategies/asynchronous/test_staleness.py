"""How much a late update counts, by hand and in general."""

import pytest
from hypothesis import given, strategies as st

from strategies.asynchronous.settings import AsyncSettings
from strategies.asynchronous.staleness import staleness_weight


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        ("constant", {}, [1.0, 1.0, 1.0, 1.0]),
        ("polynomial", {"staleness_exponent": 0.5}, [1.0, 2**-0.5, 3**-0.5, 0.5]),
        ("polynomial", {"staleness_exponent": 0.0}, [1.0, 1.0, 1.0, 1.0]),
        ("hinge", {"hinge_slope": 2.0, "hinge_start": 1}, [1.0, 1.0, 1 / 3, 1 / 5]),
    ],
)
def test_by_hand(kind: str, more: dict[str, float], expected: list[float]) -> None:
    """(1 + s)^−½ at s = 0 to 3; the hinge with a = 2, b = 1: 1 / (2·(2 − 1) + 1), 1 / (2·(3 − 1) + 1)."""
    settings = AsyncSettings.model_validate({"staleness": kind, **more})
    assert [staleness_weight(s, settings) for s in range(4)] == pytest.approx(expected)


@given(st.sampled_from(["constant", "polynomial", "hinge"]), st.integers(0, 500))
def test_it_falls_and_stays_positive(kind: str, staleness: int) -> None:
    settings = AsyncSettings.model_validate({"staleness": kind})
    fresh, now, later = (staleness_weight(s, settings) for s in (0, staleness, staleness + 1))
    assert fresh == 1.0
    assert 0 < later <= now <= 1

"""benchmarks/watching.py, small: a run that is watched and tracked, and what that took of it."""

import pytest

from benchmarks import BENCHMARKS


@pytest.mark.check
def test_every_share_is_measured() -> None:
    found = BENCHMARKS["watching"](rounds=20, clients=2, track="tensorboard")
    assert 0 < found["page-delay-median-seconds"] <= found["page-delay-most-seconds"]
    assert 0 <= found["watch-share-percent"] < 100
    assert found["event-microseconds"] > 0
    (row,) = found["tracking"]
    assert row["tracker"] == "tensorboard"
    assert 0 < row["round-ms"] == pytest.approx(10 * row["share-percent"] * found["round-seconds"])

"""benchmarks/secagg.py, small, and the rounds that it shares with the benchmark of encryption."""

import pytest

from benchmarks import BENCHMARKS
from benchmarks.losing import num_lost
from strategies.core.errors import BadInput


def test_masks_cost_eight_bytes_for_four_and_lost_clients_send_nothing() -> None:
    """Of five, one is lost: four vectors come, and the rest, such as shares, is less than a tenth here."""
    found = BENCHMARKS["secagg"](cohorts="", lost="mlp:5", rounds=1, workers=1)
    assert found["whole"] == {}
    figures = found["lost"]["mlp:5"]
    assert figures["lost"] == num_lost(5) == 1
    vectors = figures["parameters"] * 4
    assert 1 <= figures["plain-bytes-up"] / (4 * vectors) < 1.1
    assert 1 <= figures["masked-bytes-up"] / (8 * vectors) < 1.1
    assert figures["times-the-upload"] == pytest.approx(2, rel=0.1)
    assert figures["times-as-long"] == figures["masked-seconds"] / figures["plain-seconds"]


@pytest.mark.parametrize("given", ["mlp", "mlp:2", "mlp:-5", "mlp:five", ":5", "mlp:5,"])
def test_no_cohort(given: str) -> None:
    with pytest.raises(BadInput, match=f"^benchmark secagg: cohorts: given '{given}', allowed model:clients"):
        BENCHMARKS["secagg"](cohorts=given)


def test_no_model_is_said_before_anything_is_measured() -> None:
    with pytest.raises(BadInput, match=r"model\.name"):
        BENCHMARKS["secagg"](cohorts="tree:5")

"""strategies/analytics/diagnosis.py: figures of how unlike clients are."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

from strategies.analytics.diagnosis import (
    Evidence,
    advice,
    drifts,
    findings,
    gradient_dissimilarity,
    imbalance,
    label_divergence,
)

COUNTS = st.dictionaries(
    st.sampled_from("abcd"), st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any), min_size=1
)


# by hand


def test_divergence_by_hand() -> None:
    """p = (1, 0), q = (¾, ¼), m = (⅞, ⅛): ½·log₂(8/7) + ½·(¾·log₂(6/7) + ¼·log₂ 2)."""
    found = label_divergence({"a": [4, 0], "b": [2, 2]})
    expected = 0.5 * math.log2(8 / 7) + 0.5 * (0.75 * math.log2(6 / 7) + 0.25)
    assert found["a"] == pytest.approx(expected)


def test_dissimilarity_counts_examples() -> None:
    """Weights ¾, ¼; gradients (2, 0), (0, 4): (¾·4 + ¼·16) / (1.5² + 1²) = 7 / 3.25."""
    gradients = {"a": torch.tensor([2.0, 0.0]), "b": torch.tensor([0.0, 4.0])}
    assert gradient_dissimilarity(gradients, {"a": 30, "b": 10}) == pytest.approx(7 / 3.25)


def test_imbalance_by_hand() -> None:
    assert imbalance([1.0, 2.0, 9.0]) == 4.5
    assert imbalance([]) == imbalance([0.0, 0.0]) == 1.0


# properties


@given(COUNTS)
def test_divergence_is_a_share_and_scale_free(counts: dict[str, list[int]]) -> None:
    found = label_divergence(counts)
    tenfold = label_divergence({i: [10 * c for c in own] for i, own in counts.items()})
    for client_id, value in found.items():
        assert -1e-12 <= value <= 1
        assert tenfold[client_id] == pytest.approx(value)


def test_equal_clients_differ_in_nothing() -> None:
    same = {i: torch.tensor([1.0, -2.0]) for i in "abc"}
    weights = {"a": 1.0, "b": 5.0, "c": 2.0}
    assert gradient_dissimilarity(same, weights) == pytest.approx(1.0)
    assert list(drifts(same, weights).values()) == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)
    assert list(label_divergence({i: [3, 1] for i in "abc"}).values()) == pytest.approx([0.0, 0.0, 0.0])


@given(st.lists(st.lists(st.floats(-9, 9), min_size=2, max_size=2), min_size=1, max_size=6))
def test_dissimilarity_is_at_least_one(rows: list[list[float]]) -> None:
    gradients = {str(i): torch.tensor(row, dtype=torch.float64) for i, row in enumerate(rows)}
    found = gradient_dissimilarity(gradients, dict.fromkeys(gradients, 1.0))
    assert found is None or found >= 1 - 1e-9


# advice


@pytest.mark.parametrize(
    ("name", "calm", "warned"),
    [
        ("label divergence", 0.01, 0.5),
        ("label divergence", 0.2, 0.5),
        ("gradient dissimilarity", 1.2, 9.0),
        ("client drift", 0.5, 5.0),
        ("size imbalance", 1.0, 10.0),
        ("speed imbalance", 1.0, 10.0),
    ],
)
def test_advice_depends_on_the_threshold(name: str, calm: float, warned: float) -> None:
    assert advice(name, calm) != advice(name, warned)
    assert advice(name, warned).count(".") >= 1


def test_what_cannot_be_measured_is_said() -> None:
    opposite = {"a": torch.tensor([1.0]), "b": torch.tensor([-1.0])}
    evidence = Evidence({"a": [1, 1], "b": [1, 1]}, opposite, opposite, {"a": 1.0, "b": 1.0})
    found = {f.name: f for f in findings(evidence)}
    assert found["gradient dissimilarity"].value is None
    assert found["client drift"].advice == "It could not be measured: the average over the clients is zero."
    assert found["size imbalance"].value == 1.0

"""Rounded weights: by hand, on a grid of its own for each entry, and what they bring back."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st
from pydantic import ValidationError
from torch import nn

from strategies.core.wire import Layout
from tests.unlearning.audit_world import SURE, CohortStandIn, trained_run, weights
from unlearning.audit.rounding import by_bits, measure_rounded, rounded, rounded_weights
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings

LAYOUT = Layout(("w", "b"), ((4,), (2,)))


def test_each_entry_has_a_grid_of_its_own_by_hand() -> None:
    """3 bits are −3 to 3 steps: of 1 for the first entry, of 0.01 for the second."""
    flat = torch.tensor([3.0, 1.4, -2.6, 0.0, 0.03, -0.012])
    expected = torch.tensor([3.0, 1.0, -3.0, 0.0, 0.03, -0.01])
    torch.testing.assert_close(rounded(flat, LAYOUT, 3), expected)


@given(st.lists(st.floats(-100, 100, width=32), min_size=6, max_size=6), st.integers(2, 8))
def test_no_weight_moves_by_more_than_half_a_step(values: list[float], bits: int) -> None:
    flat = torch.tensor(values)
    found = rounded(flat, LAYOUT, bits)
    for part, moved in zip(torch.split(flat, [4, 2]), torch.split(found - flat, [4, 2]), strict=True):
        step = float(part.abs().max()) / (2 ** (bits - 1) - 1)
        assert float(moved.abs().max()) <= 0.5 * step * (1 + 1e-4) + 1e-30
    assert len(torch.unique(found)) <= 2 * (2**bits - 1)


def test_an_entry_of_zeros_stays() -> None:
    assert rounded(torch.zeros(6), LAYOUT, 4).equal(torch.zeros(6))


def test_running_statistics_are_not_rounded() -> None:
    """Two bits: 0.4 of a weight is 0 beside 1; a variance of 0.4 beside 1 stays."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2, affine=False))
    state = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    layout, values = Layout.of(state), torch.tensor([1.0, 0.4, 0.4, 0.4, 0.4, 1.0, 0.4, 1.0])
    run = replace(trained_run(), layout=layout, build_model=lambda: model, final=values)
    expected = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.4, 1.0, 0.4, 1.0])
    assert rounded_weights(run, values, 2).equal(expected)
    assert rounded(values, layout, 2).tolist()[4:] == [0.0, 1.0, 0.0, 1.0]


def test_models_are_measured_at_each_number_of_bits() -> None:
    """One weight and nothing else lies on any grid, so that the accuracies are those without rounding."""
    models = {"before": weights(SURE), "after": weights(-SURE), "retrain": weights(SURE)}
    settings = AuditSettings(rounding="8, 4")
    request = ForgetRequest(clients=("1",))
    found = measure_rounded(trained_run(), models, request, CohortStandIn().cohort, settings)
    document = by_bits(found, {"before": "before", "after": "after", "retrain": "retrain"})
    assert list(document) == ["8", "4"]
    assert document["8"]["before"] == {
        "unlearning_accuracy": 100.0,
        "retain_accuracy": 60.0,
        "test_accuracy": 75.0,
    }
    assert document["8"]["after"]["unlearning_accuracy"] == 0.0
    assert by_bits({"before": (), "after": (), "retrain": ()}, {"before": "before"}) == {}


@pytest.mark.parametrize("given_bits", ["1", "9", "four", "8;4"])
def test_other_numbers_of_bits_are_refused(given_bits: str) -> None:
    with pytest.raises(ValidationError, match="numbers of bits from 2 to 8"):
        AuditSettings(rounding=given_bits)

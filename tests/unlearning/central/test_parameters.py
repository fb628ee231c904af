"""unlearning/central/parameters.py: flat vectors and copies."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from strategies.core.seeds import torch_generator
from strategies.core.wire import Layout
from unlearning.central.parameters import (
    copied,
    flat_parameters,
    layers_with_weights,
    load_parameters,
    moved,
    split_like,
    trainable,
    with_norm,
)

BuildNet = Callable[..., nn.Module]


def two_weights() -> nn.Module:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
        model.bias.copy_(torch.tensor([3.0]))
    return model


# by hand


def test_flat_vector_by_hand() -> None:
    """Weights (1, 2), then the bias 3; a step of (1, 0, −1) leads to (2, 2, 2)."""
    model = two_weights()
    assert flat_parameters(model).tolist() == [1.0, 2.0, 3.0]
    assert flat_parameters(moved(model, torch.tensor([1.0, 0.0, -1.0]))).tolist() == [2.0, 2.0, 2.0]


def test_frozen_parameters_are_no_part_of_the_vector() -> None:
    model = two_weights()
    model.get_parameter("weight").requires_grad_(False)
    assert list(trainable(model)) == ["bias"]
    assert flat_parameters(model).tolist() == [3.0]


def test_layers_with_weights_leave_normalisation_out(build_conv: BuildNet) -> None:
    assert layers_with_weights(build_conv()) == ("0", "5")


# properties


def test_the_order_is_that_of_the_wire(build_conv: BuildNet) -> None:
    model = build_conv()
    state = model.state_dict()
    assert torch.equal(flat_parameters(model), Layout.of(state).flatten(state))


def test_loading_what_was_flattened_changes_nothing(build_conv: BuildNet) -> None:
    model, twin = build_conv(0), build_conv(1)
    load_parameters(twin, flat_parameters(model))
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


def test_moving_and_copying_leave_the_model_alone(build_net: BuildNet) -> None:
    model = build_net(2, 3).eval()
    before = flat_parameters(model)
    twin = copied(model)
    load_parameters(twin, torch.zeros_like(before))
    moved(model, torch.ones_like(before))
    assert torch.equal(flat_parameters(model), before)
    assert not twin.training


def test_a_copy_has_no_gradients(build_net: BuildNet) -> None:
    model = build_net(2, 3)
    model(torch.ones(1, 2, dtype=torch.float64)).sum().backward()
    assert all(p.grad is None for p in copied(model).parameters())
    assert all(p.grad is not None for p in model.parameters())


# errors


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"expected shape \(3,\), one entry per trainable parameter, got \(4,\)"
    ):
        split_like(torch.zeros(4), two_weights())


def test_a_norm_by_hand() -> None:
    """Length 10 in the direction of (0, −2): (0, −10)."""
    assert with_norm(torch.tensor([0.0, -2.0]), 10.0).tolist() == [0.0, -10.0]


@given(seed=st.integers(0, 1000), norm=st.floats(1e-6, 1e6), scale=st.sampled_from([1.0, 7.0]))
def test_the_norm_is_given_and_the_direction_kept(seed: int, norm: float, scale: float) -> None:
    vector = torch.randn(50, generator=torch_generator(seed), dtype=torch.float64)
    result = with_norm(scale * vector, norm)
    assert float(result.norm()) == pytest.approx(norm, rel=1e-12)
    assert float(result @ vector) == pytest.approx(norm * float(vector.norm()), rel=1e-12)


def test_a_zero_vector_or_norm_gives_zero() -> None:
    assert with_norm(torch.zeros(3), 1.0).tolist() == with_norm(torch.ones(3), 0.0).tolist() == [0.0] * 3

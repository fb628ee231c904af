"""unlearning/central/fedosd.py: orthogonal to every remaining gradient, downhill on the unlearning loss."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

from strategies.client.evaluation import evaluate
from strategies.core.examples import Examples
from strategies.core.seeds import torch_generator
from unlearning.central.fedosd import (
    orthogonal_direction,
    recovery_gradient,
    unlearning_loss_each,
    unlearning_step,
)
from unlearning.central.gradients import Objective, gradient_sum
from unlearning.central.parameters import moved

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]

seeds = st.integers(0, 1000)


def gradients(seed: int, count: int, size: int = 30) -> Tensor:
    return torch.randn((count, size), generator=torch_generator(seed), dtype=torch.float64)


def mean_unlearning_loss(model: nn.Module, examples: Examples) -> float:
    with torch.no_grad():
        return float(unlearning_loss_each(model(examples.x), examples.y).mean())


# by hand


def test_unlearning_loss_by_hand() -> None:
    """p_y = ½ for equal logits: −log(3/4). Near certainty, −log(½); near impossibility, 0."""
    outputs = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    losses = unlearning_loss_each(outputs, torch.tensor([0, 0, 0]))
    assert losses.tolist() == pytest.approx([math.log(4 / 3), math.log(2), 0.0])


def test_direction_by_hand() -> None:
    """g_u = (1, 1), remaining (2, 0): d = (0, 1), at the length of g_u (0, √2)."""
    target, remaining = torch.tensor([1.0, 1.0]), [torch.tensor([2.0, 0.0])]
    assert orthogonal_direction(target, remaining).tolist() == pytest.approx([0.0, 1.0])
    assert unlearning_step(target, remaining).tolist() == pytest.approx([0.0, math.sqrt(2)])


def test_recovery_by_hand() -> None:
    """w − w_orig = (2, 0): (3, 4) loses its first component and is stretched back to length 5."""
    result = recovery_gradient(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 7.0]), torch.tensor([0.0, 7.0]))
    assert result.tolist() == pytest.approx([0.0, 5.0])


# properties


@given(seed=seeds, clients=st.integers(1, 12))
def test_the_direction_is_orthogonal_to_every_remaining_gradient(seed: int, clients: int) -> None:
    target, *remaining = gradients(seed, clients + 1)
    step = unlearning_step(target, remaining)
    for gradient in remaining:
        assert abs(float(step @ gradient)) < 1e-9 * float(step.norm() * gradient.norm())
    assert float(step @ target) > 0
    assert float(step.norm()) == pytest.approx(float(target.norm()))


@given(seed=seeds)
def test_the_direction_is_the_nearest_orthogonal_one(seed: int) -> None:
    """Against least squares: g_u minus its projection on the remaining gradients."""
    target, *remaining = gradients(seed, 5)
    rows = torch.stack(remaining)
    coefficients = torch.linalg.lstsq(rows.T, target.unsqueeze(1)).solution.squeeze(1)
    torch.testing.assert_close(
        orthogonal_direction(target, remaining), target - rows.T @ coefficients, rtol=1e-8, atol=1e-10
    )


@given(seed=seeds)
def test_dependent_gradients_and_their_order_do_not_matter(seed: int) -> None:
    target, a, b = gradients(seed, 3)
    plain = orthogonal_direction(target, [a, b])
    for remaining in ([b, a], [a, b, a + b], [a, b, 1e-4 * a], [a, b, torch.zeros_like(a)]):
        torch.testing.assert_close(orthogonal_direction(target, remaining), plain, rtol=1e-6, atol=1e-8)


def test_a_gradient_inside_the_others_span_leaves_no_step() -> None:
    a, b = gradients(0, 2)
    assert not unlearning_step(a + 2 * b, [a, b]).any()


def test_without_others_the_step_is_the_gradient() -> None:
    (target,) = gradients(0, 1)
    assert torch.equal(unlearning_step(target, []), target)


def test_a_small_step_unlearns_and_spares_the_others(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    """The unlearning loss falls at the first-order rate −η dᵀg_u; the others' losses change by O(η²) only."""
    model, eta = build_net(4, 8, 3), 1e-4
    leaving, *others = (make_blobs(20, seed=seed) for seed in range(3))
    target = gradient_sum(model, leaving, Objective(loss=unlearning_loss_each)).mean
    step = unlearning_step(target, [gradient_sum(model, other).mean for other in others])
    after = moved(model, -eta * step)
    fall = mean_unlearning_loss(model, leaving) - mean_unlearning_loss(after, leaving)
    assert fall == pytest.approx(eta * float(step @ target), rel=1e-2)
    for other in others:
        assert abs(evaluate(after, other).loss - evaluate(model, other).loss) < 0.02 * fall


@given(seed=seeds)
def test_recovery_neither_returns_nor_flees(seed: int) -> None:
    gradient, current, original = gradients(seed, 3)
    result = recovery_gradient(gradient, current, original)
    assert abs(float(result @ (current - original))) < 1e-9 * float(
        result.norm() * (current - original).norm()
    )
    assert float(result.norm()) == pytest.approx(float(gradient.norm()))
    torch.testing.assert_close(recovery_gradient(result, current, original), result)


def test_recovery_at_the_original_model_is_the_gradient() -> None:
    gradient, original = gradients(0, 2)
    assert torch.equal(recovery_gradient(gradient, original, original), gradient)


def test_recovery_of_a_gradient_that_only_returns_is_nothing() -> None:
    away = torch.tensor([3.0, 0.0])
    assert recovery_gradient(2 * away, away, torch.zeros(2)).tolist() == [0.0, 0.0]


# a damaged answer


def test_the_plain_gradient_conflicts_with_the_others(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    """Without the projection the same step does move the others' losses."""
    model, eta = build_net(4, 8, 3), 1e-4
    leaving, other = make_blobs(20, seed=0), make_blobs(20, seed=1)
    target = gradient_sum(model, leaving, Objective(loss=unlearning_loss_each)).mean
    after = moved(model, -eta * target)
    fall = mean_unlearning_loss(model, leaving) - mean_unlearning_loss(after, leaving)
    assert abs(evaluate(after, other).loss - evaluate(model, other).loss) > 0.1 * fall

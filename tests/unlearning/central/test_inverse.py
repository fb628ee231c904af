"""unlearning/central/inverse.py: both inverses against the dense one; the released recurrence is none."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator
from strategies.models.mask import hold
from unlearning.central.gradients import ExampleSum, gradient_blocks
from unlearning.central.inverse import conjugate_gradient_product, fisher_product_sum, woodfisher_product
from unlearning.central.parameters import copied

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]

DAMPING = 1e-3


@dataclass(frozen=True, eq=False)
class Problem:
    """A 203-parameter model, 40 examples, their gradients, and a vector with F⁻¹ times it."""

    model: nn.Module
    examples: Examples
    gradients: Tensor
    vector: Tensor
    solution: Tensor


@pytest.fixture
def problem(build_net: BuildNet, make_blobs: MakeBlobs) -> Problem:
    model, examples = build_net(6, 14, 7), make_blobs(40, dims=6, classes=7)
    gradients = torch.cat(list(gradient_blocks(model, examples)))
    size = gradients.shape[1]
    vector = torch.randn(size, generator=torch_generator(0), dtype=torch.float64)
    dense = DAMPING * torch.eye(size, dtype=torch.float64) + gradients.T @ gradients / len(examples)
    return Problem(model, examples, gradients, vector, torch.linalg.solve(dense, vector))


def relative_error(result: Tensor, expected: Tensor) -> float:
    return float((result - expected).norm() / expected.norm())


# by hand


def test_woodfisher_by_hand() -> None:
    """λ = 1, N = 2, g = (2, 0) and (0, 2): F = I + ½ diag(4, 4) = 3·I, so F⁻¹(3, 6) = (1, 2)."""
    blocks = torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]]], dtype=torch.float64)
    product = woodfisher_product(blocks, torch.tensor([3.0, 6.0], dtype=torch.float64), 1.0, 2)
    assert product.tolist() == pytest.approx([1.0, 2.0])


def test_conjugate_gradients_by_hand() -> None:
    """F = diag(1, 2): F⁻¹(1, 4) = (1, 2), in as many products as there are eigenvalues."""
    diagonal = torch.tensor([1.0, 2.0], dtype=torch.float64)
    solution = conjugate_gradient_product(
        lambda x: diagonal * x, torch.tensor([1.0, 4.0], dtype=torch.float64), max_products=2
    )
    assert solution.tolist() == pytest.approx([1.0, 2.0])


def test_the_inverse_of_nothing_is_nothing() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    assert torch.equal(conjugate_gradient_product(lambda x: x, zero), zero)


# against the dense inverse


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_woodfisher_applies_the_inverse(rows: int, problem: Problem) -> None:
    product = woodfisher_product(torch.split(problem.gradients, rows), problem.vector, DAMPING, 40)
    assert relative_error(product, problem.solution) < 1e-9


def test_conjugate_gradients_over_clients_apply_the_inverse(problem: Problem) -> None:
    """Three clients hold the examples; every product is a sum of theirs."""
    clients = [problem.examples.subset(range(start, 40, 3)) for start in range(3)]

    def multiply(x: Tensor) -> Tensor:
        sums = ExampleSum.join(fisher_product_sum(problem.model, client, x) for client in clients)
        return DAMPING * x + sums.mean

    product = conjugate_gradient_product(multiply, problem.vector, tolerance=1e-9, max_products=200)
    assert relative_error(product, problem.solution) < 1e-6


@pytest.mark.parametrize("batch_size", [256, 40, 7, 1])
def test_the_product_sum_is_that_of_the_gradients(problem: Problem, batch_size: int) -> None:
    expected = problem.gradients.T @ (problem.gradients @ problem.vector)
    result = fisher_product_sum(problem.model, problem.examples, problem.vector, batch_size=batch_size)
    torch.testing.assert_close(result.total, expected, rtol=1e-10, atol=1e-10)
    assert result.count == 40


def test_the_product_sum_passes_convolutions_and_norms(build_conv: BuildNet) -> None:
    generator, model = torch_generator(1), build_conv()
    examples = TensorExamples(torch.rand((12, 1, 6, 6), generator=generator), torch.arange(12) % 3)
    gradients = torch.cat(list(gradient_blocks(model, examples))).double()
    vector = torch.randn(gradients.shape[1], generator=generator, dtype=torch.float64)
    expected = gradients.T @ (gradients @ vector)
    assert relative_error(fisher_product_sum(model, examples, vector).total, expected) < 1e-5


def test_the_product_sum_over_nothing_is_zero(problem: Problem) -> None:
    result = fisher_product_sum(problem.model, problem.examples.subset([]), problem.vector)
    assert not result.total.any()
    assert result.count == 0


def test_pruned_weights_have_no_part_in_the_product_sum(problem: Problem) -> None:
    """What a model holds as pruned has no gradient: the rows and the result are zero there."""
    kept = torch.arange(14 * 6).view(14, 6) % 2 == 0
    model = hold(copied(problem.model), {"0.weight": kept})
    gradients = torch.cat(list(gradient_blocks(model, problem.examples)))
    result = fisher_product_sum(model, problem.examples, problem.vector).total
    assert not result[: 14 * 6][~kept.view(-1)].any()
    torch.testing.assert_close(result, gradients.T @ (gradients @ problem.vector), rtol=1e-10, atol=1e-10)


# errors


def test_missing_gradients_are_noticed(problem: Problem) -> None:
    with pytest.raises(ValueError, match="expected 41 gradients, one per example, got 40"):
        woodfisher_product([problem.gradients], problem.vector, DAMPING, 41)


def test_an_inverse_that_was_not_reached_is_an_error(problem: Problem) -> None:
    scales = torch.linspace(1, 100, 203, dtype=torch.float64)
    with pytest.raises(ArithmeticError, match="no solution within 1e-06 after 3 products; raise the damping"):
        conjugate_gradient_product(lambda x: scales * x, problem.vector, max_products=3)


# a damaged answer


def released_recurrence(gradients: Tensor, vector: Tensor) -> Tensor:
    """The recurrence of the authors' code: one running vector in place of F_{j−1}⁻¹ g_j."""
    product, running, count = vector.clone(), gradients[0].clone(), len(gradients)
    for gradient in gradients[1:]:
        curvature = running @ gradient
        product -= (product @ gradient) / (count + curvature) * running
        running -= curvature / (count + curvature) * running
    return product


def test_the_released_recurrence_is_no_inverse(problem: Problem) -> None:
    """It moves along the first gradient only, and misses the solution however it is scaled."""
    product = released_recurrence(problem.gradients, problem.vector)
    moved, first = product - problem.vector, problem.gradients[0]
    assert abs(float(moved @ first) / float(moved.norm() * first.norm())) == pytest.approx(1.0)
    scale = float(product @ problem.solution) / float(product @ product)
    assert relative_error(scale * product, problem.solution) > 0.1

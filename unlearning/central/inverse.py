"""F⁻¹v for the damped empirical Fisher matrix F = λI + (1/N) Σ g gᵀ over the gradients g of N examples.

Two ways, both exact up to rounding, and neither ever holds a P×P matrix.

WoodFisher, for gradients in one place: Singh and Alistarh, "WoodFisher: Efficient Second-Order Approximation
for Neural Network Compression", NeurIPS 2020, arXiv 2004.14340: from F_0 = λI by Sherman–Morrison,

    k_0 = λ⁻¹v,    k_j = k_{j−1} − F_{j−1}⁻¹ g_j (g_jᵀ k_{j−1}) / (N + g_jᵀ F_{j−1}⁻¹ g_j).

The released code of Jia et al. (arXiv 2304.04934) replaces F_{j−1}⁻¹ g_j by one running vector, a multiple
of the first gradient, so that k moves along that gradient only and no inverse is applied. Here the factors
of F_j⁻¹ are kept: O(N·P) memory, O(N²·P) time.

Conjugate gradients, for gradients spread over clients: F x needs only Σ g (gᵀx), a sum over examples. O(P)
memory and one visit to every client per iteration, with the result of the same examples in one place.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from strategies.core.examples import Examples
from unlearning.central.gradients import PLAIN, ExampleSum, Objective, batches_on
from unlearning.central.parameters import copied, split_like, trainable


def woodfisher_product(blocks: Iterable[Tensor], vector: Tensor, damping: float, num_examples: int) -> Tensor:
    """Return F⁻¹v for F = λI + (1/N) Σ g gᵀ, taking in a block of gradients at a time.

    One row per block is the recurrence as published; b rows are b steps of it at once, by the Woodbury
    identity.

    Parameters
    ----------
    blocks
        Gradients, each of shape [rows, P], N rows in all; ValueError if there are others.
    vector
        v, shape [P]; the result has its dtype, and float64 is advisable.
    damping, num_examples
        λ, above 0, and N.
    """
    product = vector / damping
    factors: list[Tensor] = []  # F⁻¹ = λ⁻¹I − Σ WᵀW, one W per block, shape [rows, P]
    rows = 0
    for block in blocks:
        gradients = block.to(vector)  # [rows, P]
        directions = gradients / damping
        for factor in factors:
            directions = directions - (gradients @ factor.T) @ factor  # ends as G F⁻¹, F before this block
        core = directions @ gradients.T + num_examples * torch.eye(len(block)).to(vector)  # [rows, rows]
        root = torch.linalg.cholesky(core)
        factors.append(torch.linalg.solve_triangular(root, directions, upper=False))
        product = product - factors[-1].T @ (factors[-1] @ vector)
        rows += len(block)
    if rows != num_examples:
        raise ValueError(f"expected {num_examples} gradients, one per example, got {rows}")
    return product


def fisher_product_sum(
    model: nn.Module,
    examples: Examples,
    vector: Tensor,
    objective: Objective = PLAIN,
    batch_size: int = 256,
) -> ExampleSum:
    """Return Σ g (gᵀx) over examples, x = `vector` of shape [P]: a client's part of N·(F − λI) x.

    No gradient of a single example is formed. Σ uᵢ gᵢ is linear in u, so its derivative by uᵢ along x is gᵢᵀx
    (Pearlmutter, "Fast Exact Multiplication by the Hessian", Neural Computation 1994, has the idea); with
    these slopes for u, Σ uᵢ gᵢ is the result. It takes four passes over a batch, and the memory of a few.
    `batch_size` changes the result by rounding only; over no example it is zero.
    """
    twin = copied(model).eval()
    parameters = list(trainable(twin).values())
    direction = [part.to(p) for part, p in zip(split_like(vector, twin).values(), parameters, strict=True)]
    total = torch.zeros(len(vector), dtype=torch.float64)
    for x, y in batches_on(examples, batch_size, parameters[0].device):
        losses = objective.losses(twin, x, y)  # [n]
        factors = torch.ones_like(losses, requires_grad=True)
        combined = torch.autograd.grad(losses, parameters, factors, create_graph=True)
        (slopes,) = torch.autograd.grad(combined, factors, direction, retain_graph=True)  # [n]
        pieces = torch.autograd.grad(losses, parameters, slopes)
        total += torch.cat([piece.reshape(-1) for piece in pieces]).double().cpu()
    return ExampleSum(total, len(examples))


def conjugate_gradient_product(
    multiply: Callable[[Tensor], Tensor], vector: Tensor, *, tolerance: float = 1e-6, max_products: int = 100
) -> Tensor:
    """Return F⁻¹v from multiplications by F alone; in a federation each is one visit to every client.

    Parameters
    ----------
    multiply
        x -> Fx, for a symmetric positive definite F.
    vector
        v, shape [P], float64.
    tolerance
        Norm of the residual at which to stop, relative to ‖v‖; ArithmeticError if it is not reached.
    max_products
        Multiplications allowed.
    """
    solution = torch.zeros_like(vector)
    residual = direction = vector
    target = tolerance * float(torch.linalg.vector_norm(vector))
    for _ in range(max_products):
        if float(torch.linalg.vector_norm(residual)) <= target:
            return solution
        image = multiply(direction)
        squared = residual @ residual
        step = squared / (direction @ image)
        solution = solution + step * direction
        residual = residual - step * image
        direction = residual + (residual @ residual / squared) * direction
    if float(torch.linalg.vector_norm(residual)) > target:
        raise ArithmeticError(
            f"no solution within {tolerance} after {max_products} products; raise the damping"
        )
    return solution

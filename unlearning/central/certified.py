"""Certified removal from a linear head: Newton steps to a measured residual, and noise that hides the rest.

Guo, Goldstein, Hannun, van der Maaten, "Certified Data Removal from Machine Learning Models", ICML 2020,
arXiv 1911.03030. For a loss ℓ that is convex in the head's weights w, with n = |D_r| and λ > 0,

    L(w) = (1/n) Σ_{D_r} ℓ + λ/2 ‖w‖²,        w ← w − H⁻¹ ∇L(w),   H = ∇²L(w)      (their equation 3)

At the minimum over D the step is theirs: w + H⁻¹Δ, with Δ the gradient of what is removed. Then, as L is
λ-strongly convex, the residual bounds the distance to the minimum without the data:

    ‖w − w*(D_r)‖ ≤ ‖∇L(w)‖ / λ ≤ Δ

and w + N(0, σ²I) is (ε, δ)-indistinguishable, in both directions, from w*(D_r) + N(0, σ²I), if Δ/σ is small
enough for that by Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy", ICML 2018,
Theorem 8, which is exact and holds for every ε:

    δ ≥ Φ(Δ/2σ − εσ/Δ) − e^ε Φ(−Δ/2σ − εσ/Δ)

Differs from the paper: the residual is measured, where they bound it by the Lipschitz constant of the
Hessian, and steps go on until it is as small as σ, ε and δ ask; so the noise is added to the result and not
to the loss, training needs no part in it, and errors of earlier removals do not add up. What adds up is ε:
whoever sees m results after a removal has seen m mechanisms, and the budget is refused when it is spent.

Guarantee: (ε, δ) against the minimum of L over D_r with the same noise, not against training for some rounds.
It is about the head alone: a body that was trained with the data, or by it, remembers them, so everything
but the head must be frozen, and what its weights had seen before is not certified.
Needs: D_r alone. Cost: a pass over D_r per step, usually three to six, and the solution of P equations.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from strategies.core.errors import LetheError
from strategies.core.examples import Examples
from strategies.core.gaussian_mechanism import largest_ratio
from strategies.core.secret_random import RandomStream
from strategies.core.settings import Settings
from strategies.task import CLASSIFICATION
from unlearning.central.data import Data, gathered
from unlearning.central.gradients import batches_on
from unlearning.central.parameters import copied, trainable

MOST_PARAMETERS = 4096
"""Of the head: their Hessian has as many rows, 128 MiB of float64."""


class CertifiedSettings(Settings):
    """What is promised, and by which noise.

    Attributes
    ----------
    epsilon : float
        ε of one removal, above 0.
    delta : float
        δ of one removal, in (0, 1).
    noise : float
        σ of the noise on every weight of the head, above 0; the smaller, the more exact the steps must be.
    budget : float
        What ε may add up to over removals, at least 0.
    regularisation : float
        λ, above 0: the L2 coefficient of the training (``train.weight-decay``), of which the minimum is.
    max_steps : int
        Passes over D_r at most, at least 1.
    """

    epsilon: float = Field(default=1.0, gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    noise: float = Field(default=0.01, gt=0)
    budget: float = Field(default=8.0, ge=0)
    regularisation: float = Field(default=1e-3, gt=0)
    max_steps: int = Field(default=50, ge=1)


@dataclass(frozen=True, eq=False)
class HeadSum:
    """Sums over `count` examples of the loss's derivatives in the head's weights, which add up over clients.

    Parameters
    ----------
    gradient
        Shape [P], float64, of the weights [classes, d] with the bias as a last column, row by row.
    hessian
        Shape [P, P], float64, positive semidefinite.
    """

    gradient: Tensor
    hessian: Tensor
    count: int

    def __add__(self, other: "HeadSum") -> "HeadSum":
        """Return the sum over both sets of examples."""
        return HeadSum(self.gradient + other.gradient, self.hessian + other.hessian, self.count + other.count)


@dataclass(frozen=True)
class Minimum:
    """A point near a minimum: its weights, shape [P], ‖∇L‖ as measured there, and the passes it took."""

    weights: Tensor
    residual: float
    steps: int


@dataclass(frozen=True, eq=False)
class CertifiedResult:
    """The model after a removal; with what was measured, and the ε of all removals so far."""

    model: nn.Module
    residual: float
    largest_distance: float
    steps: int
    spent_epsilon: float


def head_of(model: nn.Module) -> nn.Linear:
    """Return the linear layer that is all that trains of a model.

    ValueError if something else trains as well, or the head is too large.
    """
    head = only_linear(model)
    if sum(p.numel() for p in head.parameters()) > MOST_PARAMETERS:
        raise ValueError(f"the head has more than {MOST_PARAMETERS} parameters")
    return head


def only_linear(model: nn.Module) -> nn.Linear:
    """Return the linear layer that is all that trains of a model, of any size.

    ValueError if something else trains as well.
    """
    names = set(trainable(model))
    for path, module in model.named_modules():
        own = {f"{path}.{name}".lstrip(".") for name, _ in module.named_parameters(recurse=False)}
        if isinstance(module, nn.Linear) and own == names:
            return module
    raise ValueError(
        "certified removal needs a model of which one linear layer trains and nothing else: the loss is "
        "convex in that alone, and a body that trained remembers the data; trained here: "
        f"{', '.join(sorted(names))}"
    )


def head_weights(head: nn.Linear) -> Tensor:
    """Return a head's weights with its bias as a last column, row by row, shape [P], float64."""
    columns = [head.weight, *(each.unsqueeze(1) for each in _biases(head))]
    return torch.cat([column.detach().double().cpu() for column in columns], dim=1).reshape(-1)


def load_head(head: nn.Linear, weights: Tensor) -> None:
    """Copy such weights into a head."""
    rows = weights.view(head.out_features, -1)
    with torch.no_grad():
        head.weight.copy_(rows[:, : head.in_features])
        for bias in _biases(head):
            bias.copy_(rows[:, head.in_features])


def head_inputs(model: nn.Module, examples: Examples, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """Return what comes into the head, with a last column of 1 for its bias, float64, and the labels.

    ValueError if the head's output is not the model's.
    """
    twin = copied(model).eval()
    head, seen, labels = head_of(twin), [], []

    def look(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        seen.append((inputs[0].detach(), output.detach()))

    handle = head.register_forward_hook(look)
    with torch.no_grad():
        for x, y in batches_on(examples, batch_size, head.weight.device):
            outputs = CLASSIFICATION.forward(twin, x)
            if not outputs.equal(seen[-1][1]):
                raise ValueError("certified removal needs a model whose outputs are those of its head")
            labels.append(y.cpu())
    handle.remove()
    found = torch.cat([inputs for inputs, _ in seen]).double().cpu()
    if _biases(head):
        found = torch.cat([found, torch.ones(len(found), 1, dtype=torch.float64)], dim=1)
    return found, torch.cat(labels)


def head_sum(weights: Tensor, inputs: Tensor, labels: Tensor) -> HeadSum:
    """Return the sums of gradients and Hessians of the cross-entropy in the head's weights.

    Parameters
    ----------
    weights
        Shape [P], see `head_weights`.
    inputs, labels
        Of the head, as of `head_inputs`: shapes [n, d] and [n].
    """
    rows = weights.view(-1, inputs.shape[1])  # [classes, d]
    probabilities = (inputs @ rows.T).softmax(dim=1)  # [n, classes]
    gradient = (probabilities - functional.one_hot(labels, len(rows))).T @ inputs
    weighted = torch.einsum("nc,nd->ncd", probabilities, inputs)
    own = torch.einsum("ncd,ne->cde", weighted, inputs)  # Σ p_c x xᵀ, [classes, d, d]
    crossed = weighted.flatten(1)  # [n, P]
    hessian = -crossed.T @ crossed
    size = inputs.shape[1]
    for number, block in enumerate(own):
        at = slice(number * size, (number + 1) * size)
        hessian[at, at] += block
    return HeadSum(gradient.reshape(-1), hessian, len(labels))


def minimised(
    total: Callable[[Tensor], HeadSum], start: Tensor, regularisation: float, target: float, max_steps: int
) -> Minimum:
    """Return a point whose residual ‖∇L‖ is at most `target`, by Newton's steps, halved where they overshoot.

    Parameters
    ----------
    total
        The sums over D_r at some weights; those of clients, added up, do.
    start
        Where to begin, shape [P], float64.

    Raises
    ------
    LetheError
        If the residual is still larger after `max_steps` passes.
    """
    here = start
    residual, step = _looked(total(here), here, regularisation)
    length = 1.0
    for passes in range(1, max_steps + 1):
        if residual <= target:
            return Minimum(here, residual, passes)
        there = here - length * step
        found, further = _looked(total(there), there, regularisation)
        if found < residual:
            here, residual, step, length = there, found, further, 1.0
        else:
            length /= 2
    if residual <= target:
        return Minimum(here, residual, max_steps + 1)
    raise LetheError(
        f"certified removal: the residual is {residual:.3g} after {max_steps} passes, the noise hides "
        f"{target:.3g}; give more noise, a larger ε or δ, or more steps"
    )


def certified(
    model: nn.Module,
    retain: Data,
    settings: CertifiedSettings,
    stream: RandomStream | None = None,
    earlier: int = 0,
) -> CertifiedResult:
    """Return a model whose head is (ε, δ)-indistinguishable from one that never saw the forgotten examples.

    Parameters
    ----------
    model
        One linear head that trains, on a frozen body; it stays as it is.
    retain
        D_r.
    stream
        What the noise is drawn from; None: a secret one. One that repeats certifies nothing.
    earlier
        Certified results that were published of this model's data before, whose ε counts.

    Raises
    ------
    ValueError
        If the budget is spent, D_r is empty, or more than a linear head trains.
    LetheError
        If the residual does not become small enough.
    """
    spent = (earlier + 1) * settings.epsilon
    if spent > settings.budget:
        raise ValueError(
            f"certified removal: {earlier} results at ε = {settings.epsilon:g} were published before, and "
            f"another would make {spent:g} of a budget of {settings.budget:g}; train anew"
        )
    twin = copied(model)
    head = head_of(twin)
    examples = gathered(retain)
    if not len(examples):
        raise ValueError("certified removal: there is no example left to train on")
    inputs, labels = head_inputs(twin, examples)
    distance = settings.noise * largest_ratio(settings.epsilon, settings.delta)
    found = minimised(
        lambda weights: head_sum(weights, inputs, labels),
        head_weights(head),
        settings.regularisation,
        distance * settings.regularisation,
        settings.max_steps,
    )
    noise = (stream or RandomStream.secret()).normal(len(found.weights)).double()
    load_head(head, found.weights + settings.noise * noise)
    return CertifiedResult(twin, found.residual, found.residual / settings.regularisation, found.steps, spent)


def joined(parts: Iterable[HeadSum]) -> HeadSum:
    """Return the sums over all parts, added in their order; there must be at least one."""
    first, *others = parts
    for part in others:
        first = first + part
    return first


def _biases(head: nn.Linear) -> list[Tensor]:
    """Return the head's bias, if it has one."""
    return [p for name, p in head.named_parameters() if name == "bias"]


def _looked(total: HeadSum, weights: Tensor, regularisation: float) -> tuple[float, Tensor]:
    """Return ‖∇L‖ at some weights, and the whole Newton step there."""
    gradient = total.gradient / total.count + regularisation * weights
    hessian = total.hessian / total.count
    hessian.diagonal().add_(regularisation)
    return float(torch.linalg.vector_norm(gradient)), torch.linalg.solve(hessian, gradient)

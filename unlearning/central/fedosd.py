"""FedOSD's directions: unlearn without touching the others, recover without going back.

Pan, Wang, Li, Zheng, Wang, Tang, Zhao, "Federated Unlearning with Gradient Descent and Conflict Mitigation",
AAAI 2025, arXiv 2412.20200:

    unlearning loss   ℓ_u = −log(1 − p_y / 2), bounded and smallest at p_y = 0
    direction         d = g_u − Aᵀ (A Aᵀ)⁺ A g_u, one row of A per remaining client; then ‖d‖ is set to ‖g_u‖
    unlearning        w ← w − η d
    recovery          g_k ← g_k − (g_kᵀ a / ‖a‖²) a with a = w − w_orig, ‖g_k‖ as before; w ← w − η mean(g_k)

d is the vector orthogonal to every remaining gradient that is nearest to g_u, so to first order the step
lowers the unlearning loss and leaves the others' losses alone. The projected recovery moves neither towards
w_orig nor away from it.

Steps by number take the paper's loss, which saturates at p = 1 − ε as cross-entropy does (its slope in the
logit is p (1 − p) / (2 − p)). Steps towards a goal are along the same direction, made from the gradient of a
loss that does not, each with a share of ‖w‖ as its length (`unlearning.central.stopping`).

Guarantee: none; both statements hold to first order, at the current model.
Needs: the leaving client online for g_u, the remaining clients for A and for recovery.
Cost: one visit to every client per step.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from unlearning.central.parameters import with_norm

_CUTOFF = 1e-10  # Relative to the largest eigenvalue of A Aᵀ; below it, gradients count as dependent.


def unlearning_loss_each(outputs: Tensor, y: Tensor) -> Tensor:
    """Return −log(1 − p_y / 2) of each example, shape [n], in [0, log 2], from logits [n, classes]."""
    of_label = outputs.softmax(dim=1).gather(1, y.unsqueeze(1)).squeeze(1)
    return -torch.log1p(-of_label / 2)


def orthogonal_direction(unlearning_gradient: Tensor, remaining_gradients: Sequence[Tensor]) -> Tensor:
    """Return the part of g_u that is orthogonal to every remaining gradient, shape [P], float64.

    All gradients have shape [P]; without remaining ones, g_u stays as it is.
    """
    target = unlearning_gradient.double()
    if not remaining_gradients:
        return target
    rows = torch.stack([gradient.double() for gradient in remaining_gradients])  # [clients, P]
    inverse = torch.linalg.pinv(rows @ rows.T, rtol=_CUTOFF, hermitian=True)  # [clients, clients]
    inside: Tensor = rows.T @ (inverse @ (rows @ target))
    return target - inside


def unlearning_step(unlearning_gradient: Tensor, remaining_gradients: Sequence[Tensor]) -> Tensor:
    """Return d, the orthogonal direction at the length of g_u, shape [P], float64; the step is −η d.

    It is zero where g_u lies in the span of the remaining gradients: every step would then conflict with
    them.
    """
    direction = orthogonal_direction(unlearning_gradient, remaining_gradients)
    norm = float(torch.linalg.vector_norm(unlearning_gradient.double()))
    left = float(torch.linalg.vector_norm(direction))
    return with_norm(direction, norm) if left > 1e-9 * norm else torch.zeros_like(direction)


def recovery_gradient(gradient: Tensor, current: Tensor, original: Tensor) -> Tensor:
    """Return a remaining client's gradient without its part along w − w_orig, at its own length, float64.

    `current` and `original` are w now and before forgetting, all of shape [P]; where they are equal, the
    gradient stays as it is.
    """
    away = current.double() - original.double()
    squared = float(away @ away)
    if squared == 0:
        return gradient.double()
    projected = gradient.double() - (gradient.double() @ away / squared) * away
    return with_norm(projected, float(torch.linalg.vector_norm(gradient.double())))

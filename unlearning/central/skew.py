"""Fast-FedUL: subtract a client's updates together with an estimate of the skew they left in later rounds.

Huynh, Nguyen, Nguyen, Nguyen, Weidlich, Nguyen, Aberer, "Fast-FedUL: A Training-Free Federated Unlearning
with Provable Skew Resilience", ECML PKDD 2024, arXiv 2405.18040. With w_{t,i} the weight actually used, over
all rounds in order,

    u ← β_t u + Σ_{c ∈ target} w_{t,c} δ_{t,c},    β_t = 1 − α Σ_{i selected, i ∉ target} w_{t,i},
    M' = M_F − θ u.

The others trained on a model that contained the target's updates and, pulling it towards their own minima,
undid a share of them in every later round; plain subtraction takes that share out once more. Rounds without
the target count as well: they decay u. At α = 0 and θ = 1 it is plain subtraction.

Guarantee: approximate; exact where each remaining client's update is linear in the global model, with slope
−α.
Needs: the logged updates of the target and the weights of all clients; no client.
Cost: one pass over the log with one running vector.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearning.traits.fast_fedul import SkewSettings


@dataclass(frozen=True, eq=False)
class RoundShare:
    """What one round holds of the target and of the others.

    `remaining_weight` is the sum of the weights used for clients outside the target, in [0, 1]; `target`
    holds (weight used, update of shape [P]) of each target client that took part.
    """

    remaining_weight: float
    target: Sequence[tuple[float, Tensor]] = ()


def next_estimate(estimate: Tensor, share: RoundShare, alpha: float) -> Tensor:
    """Return u after one more round, shape [P], float64, for α in [0, 1]."""
    decayed = (1.0 - alpha * share.remaining_weight) * estimate
    return sum((weight * delta.double() for weight, delta in share.target), decayed)


def influence_estimate(rounds: Iterable[RoundShare], size: int, alpha: float) -> Tensor:
    """Return u, shape [size], float64, after all rounds in order, those without a target included."""
    estimate = torch.zeros(size, dtype=torch.float64)
    for share in rounds:
        estimate = next_estimate(estimate, share, alpha)
    return estimate


def subtract_with_skew(final_model: Tensor, rounds: Iterable[RoundShare], settings: SkewSettings) -> Tensor:
    """Return M' = M_F − θ u, shape [P], in the dtype of M_F."""
    estimate = influence_estimate(rounds, len(final_model), settings.alpha)
    return (final_model.double() - settings.theta * estimate).to(final_model.dtype)

"""FedProx: federated averaging with a proximal term, tolerant of partial local work.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous Networks", MLSys 2020,
arXiv 1812.06127, equation 2: each client approximately minimises

    h_k(w; w_t) = F_k(w) + (μ/2) ‖w − w_t‖²

over all trainable parameters, and may do less local work than the others (a γ_k-inexact solution). The server
averages as FedAvg does, whatever work was done. μ = 0 with full work is FedAvg, to the bit.

The gradient of the proximal term, μ (w − w_t), is added to the loss gradient directly: the same update as
differentiating the written-out objective, without a second graph.
"""

from collections.abc import Mapping, Sequence
from math import ceil

import torch
from torch import Tensor, nn

from strategies.client.training import ClientJob, GradientAdjustment, LocalResult, planned_steps
from strategies.core import wire


def proximal_adjustment(anchor: Sequence[Tensor], mu: float) -> GradientAdjustment:
    """Return the adjustment that adds μ (w − anchor) to every gradient.

    Parameters
    ----------
    anchor
        The parameters that the round started from, in the order of the trainable parameters.
    mu
        At least 0; 0 changes nothing.
    """

    def adjust(parameters: Sequence[nn.Parameter]) -> None:
        for parameter, start in zip(parameters, anchor, strict=True):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.add_(parameter.detach() - start, alpha=mu)

    return adjust


def steps_for(client_id: str, full_steps: int, shares: Mapping[str, float]) -> int:
    """Return how many steps a client takes: its share of the full work, at least one."""
    return max(1, ceil(shares.get(client_id, 1.0) * full_steps))


def train_client(job: ClientJob) -> LocalResult:
    """Run the client half: local training with the proximal term, for the client's share of the work."""
    mu = job.strategy.mu
    anchor = [p.detach().clone() for p in job.model.parameters() if p.requires_grad]
    full = planned_steps(len(job.examples), job.train)
    stats = job.train_model(
        job.model,
        num_steps=steps_for(job.client_id, full, job.strategy.work_shares),
        adjust=proximal_adjustment(anchor, mu) if mu > 0 else None,
    )
    metrics = {wire.TRAIN_LOSS: stats.mean_loss, wire.NUM_STEPS: stats.num_steps}
    return LocalResult(job.model, len(job.examples), metrics)

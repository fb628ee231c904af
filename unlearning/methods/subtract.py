"""Forgetting a client by subtracting its logged updates.

Wu, Zhu, Mitra, "Federated Unlearning with Knowledge Distillation", arXiv 2201.09441, section 3.2. With
w_{t,i} the weight that client i's update ΔM_t^i had in round t, and N clients in the round:

    lazy (the form adopted there):  M' = M_F − Σ_t w_{t,target} ΔM_t^target
    renormalised (for comparison):  M' = M_1 + Σ_t [ΔM_t − w_{t,target} ΔM_t^target] / (1 − w_{t,target})

The paper writes both for equal weights, w = 1/N: then the factors are 1/N, N/(N−1) and 1/(N−1). Here they are
the weights that were used. A round of the target alone contributes nothing to the renormalised form.

Guarantee: approximate. The subtraction is exact, but later updates of the others were computed at models that
contained the target; that skew stays. Accuracy usually suffers: `distill` repairs it. Needs: the log with
retention ``sum`` for the lazy form, ``full`` for the renormalised one; no client. Cost: no round.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from strategies.log.reading import LogReader
from unlearning.methods.base import ForgetJob, Method, Outcome
from unlearning.traits.subtract import NAME, TRAITS, SubtractSettings

_PIECE = 1 << 20
"""Entries that are converted at a time."""


def lazy(final: Tensor, weighted_sums: Iterable[Tensor]) -> Tensor:
    """Return M_F minus the Σ_t w_t ΔM_t of each target, shapes [P], float32."""
    total: Tensor | None = None
    for weighted_sum in weighted_sums:
        total = final.double() if total is None else total  # Not beside the making of the first sum
        for part, step in zip(torch.split(total, _PIECE), torch.split(weighted_sum, _PIECE), strict=True):
            part -= step.double()
        del weighted_sum
    return final.clone() if total is None else total.float()


def renormalised_step(global_step: Tensor, target_step: Tensor, target_weight: float) -> Tensor:
    """Return the mean update of the others, [ΔM_t − Σ w ΔM^target] / (1 − Σ w), shape [P], float64.

    `global_step` is ΔM_t, the weighted sum over all clients, `target_step` that over the targets, shapes [P],
    and `target_weight` the targets' weight, in [0, 1]; at 1 nobody else took part and the step is zero.
    """
    if target_weight >= 1.0:
        return torch.zeros_like(global_step, dtype=torch.float64)
    return (global_step.double() - target_step.double()) / (1.0 - target_weight)


def renormalised(initial: Tensor, log: LogReader, targets: tuple[str, ...]) -> Tensor:
    """Return M_1 + Σ_t of the others' renormalised mean updates, shape [P], float32.

    The log must hold every update of the others; `targets` include the clients forgotten earlier.
    """
    total = initial.double()
    for server_round in log.rounds():
        step_of_others = torch.zeros_like(total)
        target_weight = 0.0
        for entry in log.entries(server_round):
            if entry.client_id in targets:
                target_weight += entry.weight
            else:
                step_of_others += entry.weight * log.delta(server_round, entry.client_id).double()
        total += renormalised_step(step_of_others, torch.zeros_like(total), target_weight)
    return total.float()


def subtracted(job: ForgetJob) -> Outcome:
    """Return the model without the targets' logged contributions."""
    if job.settings.own(NAME, SubtractSettings).form == "renormalised":
        return Outcome(renormalised(job.run.initial, job.log, job.excluded_clients), job.absence_notes)
    return Outcome(lazy(job.run.final, map(job.log.weighted_sum, job.participants)), job.absence_notes)


METHOD = Method.of(TRAITS, run=subtracted)

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

from strategies.log.reading import LogReader, by_parts
from unlearning.methods.base import ForgetJob, Method, Outcome
from unlearning.traits.subtract import NAME, TRAITS, SubtractSettings


def lazy(final: Tensor, weighted_sums: Iterable[Tensor]) -> Tensor:
    """Return M_F minus the Σ_t w_t ΔM_t of each target, shapes [P], float32."""
    total = final.double()
    for weighted_sum in weighted_sums:
        total -= weighted_sum.double()
    return total.float()


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
    run, targets, excluded = job.run, job.participants, job.excluded_clients
    if job.settings.own(NAME, SubtractSettings).form == "renormalised":
        flat = by_parts(job.log, lambda log, part: renormalised(run.initial[part], log, excluded))
    else:
        flat = by_parts(job.log, lambda log, part: lazy(run.final[part], map(log.weighted_sum, targets)))
    return Outcome(flat, job.absence_notes)


METHOD = Method.of(TRAITS, run=subtracted)

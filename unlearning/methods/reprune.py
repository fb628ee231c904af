"""Pruning anew: train, choose the mask and train on it again, all without the forgotten data.

`retrain` on a pruned run keeps its mask, and a mask of ``omp`` or ``imp`` was chosen by weights that had seen
all data. Here the dense run is trained without D_f, its weights give a mask as those of the run did, and what
is kept goes back to its initial values and is trained on the mask without D_f: what pruning does to a run
that never had the data (`unlearning.pruning`). The result has a mask of its own.

Guarantee: exact. Needs: the remaining clients online, and a run that was pruned by ``omp`` or ``imp``; on any
other, `retrain` is exact. Cost: all rounds of the run, as often as it was trained to be pruned, and once
more.
"""

from dataclasses import replace

from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.plan import RoundResult
from strategies.server.cohort import Cohort
from unlearning.methods.base import ForgetJob, Method, Outcome
from unlearning.methods.federated import clients_with_retained, feasible_selection
from unlearning.methods.retrain import RENEWED
from unlearning.pruning import Pruning
from unlearning.run import TrainedRun
from unlearning.spending import train_after
from unlearning.traits.base import SEED
from unlearning.traits.reprune import TRAITS


def repruned(job: ForgetJob) -> Outcome:
    """Return what pruning the run would have given without the forgotten data."""
    run, cohort = job.run, clients_with_retained(job)
    if run.pruned_by is None:
        raise RuntimeError("needs were not checked")
    initial = run.layout.flatten(run.build_model().state_dict())
    dense = replace(run, initial=initial, mask=None, mask_origin="")
    hidden = run.plan.privacy.hides_updates
    dense = dense.renewed() if hidden else dense
    plan = replace(dense.plan, drop=job.drop, selection=feasible_selection(run.plan.selection, cohort))
    dense = replace(dense, plan=plan)
    rounds = Pruning(dense, run.pruned_by, ()).num_rounds + 2 * plan.rounds
    done = plan.rounds
    dense = replace(dense, final=_trained(job, dense, cohort, (0, rounds)))
    mask = Pruning(dense, run.pruned_by, ()).mask(
        cohort, lambda step, _, values: job.progress(done + step, rounds, values)
    )
    sparse = replace(dense, initial=dense.initial * mask)
    flat = _trained(job, sparse, cohort.masked(mask), (rounds - plan.rounds, rounds))
    details = {"rounds": rounds, "kept": int(mask.sum()), **({SEED: dense.seed} if hidden else {})}
    return Outcome(flat, [RENEWED] if hidden else (), details, mask)


def _trained(job: ForgetJob, run: TrainedRun, cohort: Cohort, done_of: tuple[int, int]) -> Tensor:
    """Return the weights after training from a run's initial ones; `done_of` is (rounds before, in all)."""
    done, total = done_of

    def report(result: RoundResult, _: Strategy) -> None:
        job.progress(done + result.round, total, result.metrics)

    if run.plan.privacy.hides_updates:
        cohort = cohort.seeded(run.fresh_seed())
    return train_after(run, run.plan, cohort, run.initial, report)


METHOD = Method.of(TRAITS, run=repruned)

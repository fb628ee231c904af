"""Retraining without the forgotten data: the reference for every other method.

Same seed, rounds and settings, same initial model, without D_f: a forgotten client takes no part; for class
and sample requests each client leaves the named examples out, and a client without other examples takes no
part. What was forgotten earlier is left out as well.

Guarantee: exact. Needs: the remaining clients online. Cost: every round of the run again.

Where the server gets sums of updates only, masked or encrypted, two trainings that differ by one client alone
would tell it that client's update: sum₁ − sum₂ = n_C δ_C. Such a run is retrained from other initial weights
and with another seed. That is as exact, and no longer the same model to the bit: what differs by chance is
seen beside a second retraining.
"""

from dataclasses import replace

from flwr.serverapp.strategy import Strategy

from strategies.personal import measuring as personal
from strategies.plan import RoundResult
from unlearning.methods.base import ForgetJob, Method, Outcome
from unlearning.methods.federated import clients_with_retained, feasible_selection
from unlearning.spending import train_after
from unlearning.traits.base import SEED
from unlearning.traits.retrain import TRAITS

RENEWED = (
    "the run's updates are masked or encrypted: retrained from other initial weights and with another seed, "
    "so that the difference of two sums is not the forgotten client's update"
)


def retrained(job: ForgetJob) -> Outcome:
    """Return the model that the run would have given without the forgotten data."""
    run, cohort = job.run, clients_with_retained(job)
    notes: tuple[str, ...] = ()
    if run.plan.privacy.hides_updates:
        run = run.renewed()
        cohort, notes = cohort.seeded(run.seed), (RENEWED,)
    if run.plan.planned_rounds > run.plan.rounds:
        notes = (*notes, _shorter(run.plan.rounds))
    plan = replace(run.plan, drop=job.drop, selection=feasible_selection(run.plan.selection, cohort))
    figures: dict[str, float] = {}

    def report(result: RoundResult, _: Strategy) -> None:
        job.progress(result.round, plan.rounds, result.metrics)
        figures.update({key: result.metrics[key] for key in personal.FIGURES if key in result.metrics})

    flat = train_after(run, plan, cohort, run.initial, report)
    renewed = run.plan.privacy.hides_updates
    details = {"rounds": plan.rounds, **figures, **({SEED: run.seed} if renewed else {})}
    return Outcome(flat, notes, details)


def _shorter(rounds: int) -> str:
    """Say how long a run was retrained that ends before the last of its planned rounds."""
    return (
        f"retrained for {rounds} rounds, as many as are in the run's model; which of its own rounds a "
        "retraining would keep was not asked"
    )


METHOD = Method.of(TRAITS, run=retrained)

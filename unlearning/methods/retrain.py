"""Retraining without the forgotten data: the reference for every other method.

Same seed, rounds and settings, same initial model, without D_f: a forgotten client takes no part; for class
and sample requests each client leaves the named examples out, and a client that has nothing left takes no
part. What was forgotten before is left out as well.
Guarantee: exact. Needs: the remaining clients
online. Cost: every round of the run again.
"""

from dataclasses import replace

from flwr.serverapp.strategy import Strategy

from strategies import personal, wire
from strategies.rounds import RoundResult, Start, train
from unlearning.methods.base import ForgetJob, Method, Needs, Outcome
from unlearning.methods.federated import feasible, keeping


def retrained(job: ForgetJob) -> Outcome:
    """Return the model that the run would have given without the forgotten data."""
    run = job.run
    remaining = keeping(job)
    plan = replace(run.plan, drop=job.drop, selection=feasible(run.plan.selection, remaining))
    figures: dict[str, float] = {}

    def report(result: RoundResult, _: Strategy) -> None:
        job.progress(result.round, plan.rounds, result.metrics)
        figures.update({key: result.metrics[key] for key in personal.FIGURES if key in result.metrics})

    start = Start(wire.FlatRecord(run.initial, run.layout))
    arrays = train(plan, remaining, start, on_round=report)
    return Outcome(wire.flat_of(arrays, run.layout).clone(), details={"rounds": plan.rounds, **figures})


METHOD = Method(
    name="retrain",
    summary="train again without the forgotten data",
    guarantee="exact",
    source="the reference",
    cost="all rounds of the run, every remaining client in each",
    serves=frozenset({"client", "class", "sample"}),
    refusal="",
    needs=lambda settings: Needs(remaining=True, models="any"),
    run=retrained,
)

"""SIFU: go back to the last round that noise can make like one without the client, then train on.

Fraboni, Van Waerebeke, Scaman, Vidal, Kameni, Lorenzi, "SIFU: Sequential Informed Federated Unlearning for
Efficient and Provable Client Unlearning in Federated Optimization", AISTATS 2024, arXiv 2211.11656, algorithm
1; the bound ψ and its proof are in `unlearning.central.sifu`. From the log

    T = the last round with ψ_T ≤ σ · (the distance at which Gaussians are (ε, δ)-indistinguishable),
    θ = θ^T + N(0, σ² I),   then the run's rounds after T, without the client.

If ψ_T is 0, as before the first round that the client took part in, no noise is needed and none is added:
that is retraining from there on.

Differs from the paper: a further request goes back on the run's own log, for its client and those forgotten
before together, and not on the history of the training after the last one. So each result is certified for
all that are forgotten, with fresh noise, and the ε of results add up for whoever sees several.

Guarantee: (ε, δ), in both directions, between the result and that of a training without the client, from the
same initial model, in which the others took part in the same rounds, with the same batches and weights
relative to each other, and which got the same noise after the same round. It needs a loss that is convex in
the weights, plain steps, and inputs that training does not vary; other runs are refused, and of clients that
vary them, or whose data changed, no round is kept. T and ψ follow from the client's updates and are
published, so nothing is certified of them; nor of float32's rounding errors. The noise is secret, and is not
kept.

Needs: the log of every round, the remaining clients online. Cost: one visit to each of them, for the largest
norm of its inputs, and the rounds after T.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.client.training import planned_steps
from strategies.core import wire
from strategies.core.gaussian_mechanism import largest_ratio
from strategies.core.secret_random import RandomStream
from strategies.layers.privacy.noise import noised
from strategies.log.reading import mean_update
from strategies.log.update_log import Entry
from strategies.plan import RoundResult
from strategies.server.cohort import Cohort
from unlearning.central.certified import only_linear
from unlearning.central.gradients import ExampleSum
from unlearning.central.sifu import Kept, largest_square, next_sensitivity, stretch
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork, Method, Outcome
from unlearning.methods.federated import clients_with_retained, feasible_selection, received_model
from unlearning.methods.sums import answer_with, ask_for_sums
from unlearning.spending import train_after
from unlearning.traits.base import CERTIFIED
from unlearning.traits.sifu import NAME, TRAITS, SifuSettings

ACTION = "query.sifu"
LARGEST = "largest"
"""max ‖x‖² over the inputs of a client, which it sends."""

Bounds = Mapping[str, float]
"""β of the loss of any batch, by client-id."""


def sifu_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half: the largest squared norm of what comes into the layer that trains."""
    largest = largest_square(received_model(work), work.retain, work.task)
    return answer_with({LARGEST: ExampleSum(torch.tensor([largest], dtype=torch.float64), len(work.retain))})


def smoothness(job: ForgetJob, cohort: Cohort) -> Bounds:
    """Return the bound of every client of a cohort that answers usefully."""
    run = job.run
    records = {wire.ARRAYS: wire.FlatRecord(run.initial, run.layout)}
    answers = ask_for_sums(cohort, ACTION, job.spec, records, {LARGEST: 1})
    curvature = run.task.curvature(only_linear(run.build_model()).out_features)
    found = {}
    for client_id, sums in answers.items():
        largest = float(sums[LARGEST].total)
        if largest < 0 or curvature is None:
            cohort.add_fault(client_id, ACTION, f"'{LARGEST}' is {largest:g}, expected at least 0")
            continue
        found[client_id] = curvature * largest
    return found


def kept_round(job: ForgetJob, bounds: Bounds, allowed: float) -> Kept:
    """Return the last round whose sensitivity is at most `allowed`, by one pass over the log."""
    run, gone = job.run, set(job.excluded_clients)
    flat, psi = run.initial.double(), 0.0
    kept = Kept(0, run.initial, 0.0)
    for server_round in job.log.rounds():
        entries = job.log.entries(server_round)
        others = [entry for entry in entries if entry.client_id not in gone]
        if psi and any(entry.client_id not in bounds for entry in others):
            break
        step, without = _mean(job, entries), _mean(job, others)
        shift = float(torch.linalg.vector_norm(step - without)) if len(others) < len(entries) else 0.0
        psi = next_sensitivity(psi, _factor(job, server_round, others, bounds) if psi else 1.0, shift)
        flat += step
        if psi <= allowed:
            kept = Kept(server_round, flat.float(), psi)
    return kept


def certified_model(job: ForgetJob) -> Outcome:
    """Return the model after the rounds that follow the noise, with what is certified of it."""
    run, settings = job.run, job.settings.own(NAME, SifuSettings)
    cohort = clients_with_retained(job)
    bounds = smoothness(job, cohort.without(job.holdings.changed_clients))
    allowed = settings.noise * largest_ratio(settings.epsilon, settings.delta)
    kept = kept_round(job, bounds, allowed)
    hidden = kept.sensitivity > 0
    flat = noised(kept.flat, settings.noise, 1.0, RandomStream.secret()) if hidden else kept.flat
    more = run.plan.rounds - kept.round if settings.rounds == "auto" else int(settings.rounds)
    details = {
        "epsilon": settings.epsilon if hidden else 0.0,
        "delta": settings.delta if hidden else 0.0,
        "noise": settings.noise if hidden else 0.0,
        "sensitivity": kept.sensitivity,
        "allowed": allowed,
        "kept-round": kept.round,
        "run-rounds": run.plan.rounds,
        "rounds": more,
        "smoothness": max(bounds.values(), default=math.nan),
        "clients": list(job.excluded_clients),
    }
    notes = [*job.absence_notes, _told(details), *_unbounded(job, bounds)]
    return Outcome(_trained_on(job, cohort, flat, kept.round, more), notes, {CERTIFIED: details})


def _mean(job: ForgetJob, entries: Sequence[Entry]) -> Tensor:
    """Return the weighted mean of logged updates, shape [P], float64; zeros if there is none."""
    found = mean_update(job.log, entries)
    return torch.zeros(job.run.layout.size, dtype=torch.float64) if found is None else found


def _factor(job: ForgetJob, server_round: int, others: Sequence[Entry], bounds: Bounds) -> float:
    """Return by how much a round of the others stretches distances at most; 1 if none took part."""
    run, total = job.run, sum(entry.weight for entry in others)
    parts = []
    for entry in others:
        steps = planned_steps(entry.num_examples, run.train)
        rates = run.train.rates(server_round, run.plan.schedule_length, steps)
        parts.append(entry.weight / total * stretch(rates, bounds[entry.client_id], run.train.weight_decay))
    return sum(parts) if parts else 1.0


def _trained_on(job: ForgetJob, cohort: Cohort, flat: Tensor, after: int, rounds: int) -> Tensor:
    """Return the model after more rounds of the run, numbered on, without what is forgotten."""
    if rounds == 0:
        job.progress(1, 1, {})
        return flat
    run = job.run
    plan = replace(
        run.plan,
        rounds=after + rounds,
        schedule_rounds=run.plan.schedule_length,
        drop=job.drop,
        selection=feasible_selection(run.plan.selection, cohort),
    )

    def report(result: RoundResult, _: Strategy) -> None:
        job.progress(result.round - after, rounds, result.metrics)

    return train_after(run, plan, cohort, flat, report, completed_rounds=after)


def _told(details: Mapping[str, Any]) -> str:
    kept = f"went back to round {details['kept-round']} of {details['run-rounds']}"
    if not details["sensitivity"]:
        return f"{kept}, which nothing forgotten had a part in: no noise was needed, and none was added"
    return (
        f"{kept}: without the forgotten it would lie within {details['sensitivity']:.3g}, which noise of "
        f"{details['noise']:g} on each weight hides with ε = {details['epsilon']:g}, "
        f"δ = {details['delta']:g} (up to {details['allowed']:.3g})"
    )


def _unbounded(job: ForgetJob, bounds: Bounds) -> list[str]:
    """Return notes on clients whose part in later rounds could not be bounded."""
    gone, changed = {*job.excluded_clients, *bounds}, job.holdings.changed_clients
    missing = [i for i in job.log.clients() if i not in gone]
    return [
        f"client {', '.join(clients)} {reason}: no round of it could be kept"
        for clients, reason in (
            ([i for i in missing if i not in changed], "did not tell its largest input"),
            ([i for i in missing if i in changed], "has other data than in the run, which tell no bound"),
        )
        if clients
    ]


METHOD = Method.of(TRAITS, run=certified_model, actions={ACTION: sifu_client})

"""Forgetting in a run whose groups of clients were trained apart: in the groups that hold it, and no others.

A group's model, updates and clients are a run of their own, so every method works on them as on any run, and
the others' models stay to the bit. With the reference that is exact (SISA, arXiv 1912.03817): no update of a
forgotten client is in another group's model, and a group is trained again as in a run without the client.
A group that no client is left of has no model any more.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from strategies.core.isolation import group_of, grouped
from strategies.models.ensemble import Ensemble, member_layout, members_of
from strategies.server.cohort import Cohort
from unlearning.holdings import Holdings
from unlearning.methods.base import ForgetJob, Method, Outcome, Progress
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.traits.base import GROUPS


def served(method: Method, job: ForgetJob) -> Outcome:
    """Return what a method makes of a run, or of those of its groups that hold what is to be forgotten."""
    groups = job.run.plan.isolation
    if groups == 1:
        return method.run(job)
    concerned = concerned_groups(job.run, job.request, job.holdings, whole=method.is_reference)
    left = _left(job)
    working = [group for group in concerned if group in left]
    parts = list(members_of(job.run.final, groups))
    outcomes = []
    for place, group in enumerate(working):
        outcome = method.run(part_of(job, group, _placed(job.progress, place, len(working))))
        parts[group] = outcome.flat
        outcomes.append(outcome)
    for group in concerned:
        if group not in left:
            parts[group] = torch.zeros_like(parts[group])
    notes = dict.fromkeys(note for outcome in outcomes for note in outcome.notes)
    details = {key: value for outcome in outcomes for key, value in outcome.details.items()}
    said = (*_notes(concerned, working, groups), *notes)
    return Outcome(torch.cat(parts), said, {**details, GROUPS: {"of": groups, "concerned": concerned}})


def concerned_groups(
    run: TrainedRun, request: ForgetRequest, holdings: Holdings, *, whole: bool
) -> list[int]:
    """Return the groups that hold, or may hold, something that a request names; of a run without, the only.

    Parameters
    ----------
    whole
        Whether the model is made anew where the others' models are not those of a run without it either (see
        `TrainedRun.all_groups`): then these are all groups.
    """
    groups = run.plan.isolation
    if groups == 1 or (whole and run.all_groups):
        return list(range(groups))
    without = {*holdings.clients_without_forgotten, *run.forgotten_clients}
    named = request.named_clients or [i for i in run.clients if i not in without]
    return sorted({group_of(i, groups) for i in named})


def part_of(job: ForgetJob, group: int, progress: Progress) -> ForgetJob:
    """Return the job of one group: its own run, the part of the request that is about it, and its clients."""
    groups = job.run.plan.isolation

    def belongs(client_id: str) -> bool:
        return group_of(client_id, groups) == group

    cohort: Cohort | None = None if job.cohort is None else job.cohort.only(belongs)
    request = _part(job.request, belongs)
    run = _run_of(job.run, group, belongs)
    return replace(job, run=run, request=request, cohort=cohort, progress=progress)


def _run_of(run: TrainedRun, group: int, belongs: Callable[[str], bool]) -> TrainedRun:
    """Return the run that a group was."""
    groups, seeded = run.plan.isolation, run.seeded_model

    def member(model: nn.Module) -> nn.Module:
        return cast(Ensemble, model).members[group]

    def piece(flat: Tensor) -> Tensor:
        return members_of(flat, groups)[group].clone()

    return replace(
        run,
        plan=replace(run.plan, isolation=1),
        build_model=lambda: member(run.build_model()),
        seeded_model=None if seeded is None else lambda seed: member(seeded(seed)),
        layout=member_layout(run.layout, groups),
        initial=piece(run.initial),
        final=piece(run.final),
        log=None if run.log is None else run.log.only(belongs),
        clients=tuple(i for i in run.clients if belongs(i)),
        num_examples={i: count for i, count in run.num_examples.items() if belongs(i)},
    )


def _part(request: ForgetRequest, belongs: Callable[[str], bool]) -> ForgetRequest:
    """Return what of a request is about some clients; all of it, if that names none of them."""
    clients = tuple(filter(belongs, request.clients))
    samples = {i: positions for i, positions in request.samples.items() if belongs(i)}
    return replace(request, clients=clients, samples=samples) if clients or samples else request


def _left(job: ForgetJob) -> set[int]:
    """Return the groups of which a client remains with something to train on, connected or not."""
    emptied = job.holdings.clients_without_retained
    gone = {*job.request.clients, *job.run.forgotten_clients, *emptied}
    return set(grouped((i for i in job.run.clients if i not in gone), job.run.plan.isolation))


def _placed(progress: Progress, place: int, count: int) -> Progress:
    """Return the progress of one group's part of the work."""

    def report(done: int, total: int, values: "dict[str, float]") -> None:
        progress(place * total + done, count * total, values)

    return cast(Progress, report)


def _notes(concerned: list[int], working: list[int], groups: int) -> list[str]:
    shown = ", ".join(map(str, concerned))
    noun = "group" if len(concerned) == 1 else "groups"
    notes = [f"worked on {noun} {shown} of {groups} alone; the models of the others are as they were"]
    if len(concerned) == groups:
        notes = [f"worked on all {groups} groups"]
    if emptied := [str(group) for group in concerned if group not in working]:
        notes.append(f"no client is left in group {', '.join(emptied)}: its model is no part of the ensemble")
    return notes

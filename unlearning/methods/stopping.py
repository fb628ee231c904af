"""Work on over a federation until D_f looks like data that nobody trained on (`unlearning.central.stopping`).

The server measures the model before forgetting on its public data, which are neither trained on nor those of
the audit, and sends what each label's loss is to become. The clients that hold some of D_f tell sums: of the
losses of their part, of what these are to be, and of what is right. A label is taken as one that only D_f has
if it is forgotten as a class, or if no remaining client says that it holds some of it.

Limits: who holds D_f also says how far it is forgotten, and may say anything; and examples that are harder
than others of their label are forgotten too little.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.examples import Examples
from strategies.server.cohort import Cohort
from strategies.task import Task
from unlearning.central.gradients import ExampleSum
from unlearning.central.stopping import Goal, Reached, Standing, StepSettings, steps_until
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork
from unlearning.methods.federated import FederatedWork, clients_with_retained, received_model
from unlearning.methods.sums import answer_with, ask_for_sums
from unlearning.traits import base as traits

GOAL = "goal"
"""list[float], server to client. The least mean loss of each label, and of other examples."""
STANDING = "standing"
"""A sum over D_f, client to server: the numbers of a `Standing`, of each model that was asked about."""
SIZE = len(Standing().vector)
MEASURE = "query.standing"

Sums = Mapping[str, Mapping[str, ExampleSum]]
"""Client-id -> name -> sum."""


def goal_of(job: ForgetJob) -> tuple[Goal, list[str]]:
    """Return what D_f is to look like, and notes about it."""
    run, labels = job.run, job.run.num_groups
    gone, notes = set(job.drop.classes), list[str]()
    if job.request.kind == "client":
        counts = [info.label_counts for info in clients_with_retained(job).clients.values()]
        if all(counts):
            held = {label for each in counts for label, count in enumerate(each) if count}
            gone |= set(range(labels)) - held
        else:
            notes.append(
                "a remaining client does not tell its labels: each label of the forgotten data counts as one "
                "that others have"
            )
    return Goal.of(run.model(run.final), run.public, labels, sorted(gone), run.task), notes


def goal_entries(goal: Goal) -> dict[str, wire.ConfigValue]:
    """Return a goal as entries of the record ``config``."""
    return {GOAL: list(goal.vector)}


def goal_in(config: Mapping[str, Any]) -> Goal | None:
    """Return the goal that came with a message; None if there is none."""
    return Goal.from_vector([float(each) for each in config[GOAL]]) if GOAL in config else None


def standing_sum(model: nn.Module, forget: Examples, goal: Goal, task: Task) -> ExampleSum:
    """Return where a client's part of D_f stands, as it travels."""
    return ExampleSum(
        torch.tensor(Standing.of(model, forget, goal, task).vector, dtype=torch.float64), len(forget)
    )


def standings_in(found: ExampleSum) -> list[Standing]:
    """Read back one or more standings of a client.

    ValueError if one could not be of so many examples.
    """
    rows = [Standing(*row) for row in found.total.view(-1, SIZE).tolist()]
    for row in rows:
        if row.count + row.gone != found.count or not 0 <= row.right <= row.gone or row.count < 0:
            raise ValueError(
                f"'{STANDING}' tells of {row.count:g} and {row.gone:g} examples, {row.right:g} of these "
                f"right, expected {found.count} in all"
            )
    return rows


def joined(job: ForgetJob, cohort: Cohort, message_type: str, sums: Sums) -> list[Standing]:
    """Return where D_f stands after each model that was asked about.

    LetheError if no client that holds some of it answers usefully.
    """
    usable: list[list[Standing]] = []
    for client_id, each in sums.items():
        try:
            usable += [standings_in(each[STANDING])] if each[STANDING].count else []
        except ValueError as error:
            cohort.add_fault(client_id, message_type, str(error))
    if not usable:
        raise LetheError(
            f"forgetting {job.request.name}: no client answered usefully that holds what is to be forgotten"
        )
    return [sum(rows, Standing()) for rows in zip(*usable, strict=True)]


def until_goal(
    job: ForgetJob,
    work: FederatedWork,
    settings: StepSettings,
    ask: Callable[[Tensor], tuple[Sums, Standing]],
    gradient: Callable[[Sums], Tensor],
) -> Reached:
    """Take `unlearning.central.stopping.steps_until` from the run's model, on its mask, with progress.

    Parameters
    ----------
    ask
        Asks clients about flat parameters, shape [layout.size]: their sums, and where D_f stands.
    gradient
        What a step is against, shape [P] of the entries that train, from these sums.
    """
    run = job.run
    free = None if run.mask is None else run.mask[run.trained]

    def whole(values: Tensor) -> Tensor:
        return run.settled(run.final.masked_scatter(run.trained, values))

    def on_mask(sums: Sums) -> Tensor:
        return gradient(sums) if free is None else gradient(sums) * free

    def on_step(standing: Standing) -> None:
        work.advance({"loss": standing.loss / standing.count} if standing.count else {})

    start = run.final[run.trained]
    reached = steps_until(start, settings, lambda values: ask(whole(values)), on_mask, on_step=on_step)
    return replace(reached, flat=whole(reached.flat))


def measured(job: ForgetJob, cohort: Cohort, flat: Tensor, goal: Goal) -> Standing:
    """Return where D_f stands after some work, by a visit to the clients that hold it."""
    records = {wire.ARRAYS: wire.FlatRecord(flat, job.run.layout)}
    entries = goal_entries(goal)
    sums = ask_for_sums(cohort, MEASURE, job.spec, records, {STANDING: SIZE}, lambda _: entries)
    return joined(job, cohort, MEASURE, sums)[0]


def measuring_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half of `measured`."""
    goal = goal_in(work.config) or Goal()
    return answer_with({STANDING: standing_sum(received_model(work), work.forget, goal, work.task)})


def told(
    method: str, key: str, cap: float, steps: float, standing: Standing, *, made: bool = False
) -> tuple[list[str], dict[str, Any]]:
    """Return notes and details on how it ended.

    `key` is that of the cap. `made`: the model is not the one at which steps ended, but made of such.
    """
    details = {"steps": steps, "goal-met": standing.met, traits.STANDING: standing.in_words()}
    if standing.met:
        return [], details
    if made and steps < cap:
        reason = "the model that the server made of the clients' does not meet the goal of their steps"
        return [f"{method}: {reason}: {standing.in_words()}"], details
    reason = f"the cap of {cap:g} ({key})" if steps >= cap else "that no direction was left"
    return [f"{method}: {reason} ended it, not the held-out data: {standing.in_words()}"], details

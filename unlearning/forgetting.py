"""Serving a request: check that the method can, check what it needs, run it, and say what it cost."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from strategies.client.holdout import is_held_out, most_held_out
from strategies.core.errors import BadInput, LetheError
from strategies.server.cohort import Cohort, Traffic
from strategies.server.exclusion import Drop
from strategies.threads import one_thread
from unlearning.attendance import Attendance
from unlearning.guarantees import CHOSEN_BY_DATA
from unlearning.methods import METHODS
from unlearning.methods.base import UNCHANGED, ForgetJob, Method, Needs, Progress
from unlearning.request import ForgetRequest
from unlearning.requirements import check_strategy
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings
from unlearning.spending import spent_by, spent_notes
from unlearning.standing import Standing, offline_standing

_SERVED_BY = {
    "norms": ("full", "interval", "sum"),
    "sum": ("full", "sum"),
    "kept": ("full", "interval"),
    "full": ("full",),
}


_TRAINS_AS_THE_RUN = frozenset({"retrain", "distill"})
"""Methods whose clients train by the run's own strategy, and so with its privacy."""


@dataclass(frozen=True)
class ForgetResult:
    """The model after forgetting, and what it took.

    Parameters
    ----------
    flat
        New parameters, shape [P], float32.
    request, method, settings
        What was asked for.
    seconds
        Wall-clock time of the method alone.
    traffic
        Bytes and client visits.
    warnings
        Which clients that were needed failed, so that the request is perhaps not served as the method would.
    notes
        Remarks for people.
    details
        Numbers about the work, by name.
    mask
        Which parameters are left, shape [P], bool, where the method chose that anew; None: those of the run.
    """

    flat: Tensor
    request: ForgetRequest
    method: str
    settings: ForgetSettings
    seconds: float
    traffic: Traffic
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    mask: Tensor | None = None

    def to_json(self) -> dict[str, Any]:
        """Return everything but the model as plain data."""
        return {
            "request": self.request.to_json(),
            "method": self.method,
            "settings": self.settings.model_dump(by_alias=True),
            "seconds": self.seconds,
            "traffic": {
                "bytes-up": self.traffic.bytes_up,
                "bytes-down": self.traffic.bytes_down,
                "visits": self.traffic.visits,
            },
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "details": dict(self.details),
        }


def find_method(name: str) -> Method:
    """Return the method of that name.

    Raises
    ------
    BadInput
        If there is none.
    """
    if name not in METHODS:
        raise BadInput(f"unknown method '{name}'; known methods: {', '.join(METHODS)}")
    return METHODS[name]


def check_request(run: TrainedRun, request: ForgetRequest, method: str, settings: ForgetSettings) -> Needs:
    """Check, before any work, that a method can serve a request on a run; return what it needs.

    Raises
    ------
    BadInput
        If the method does not serve the kind of request, a client, class or position is unknown or forgotten
        already, or the log or the public data that it needs is missing.
    """
    chosen = find_method(method)
    if request.kind not in chosen.serves:
        raise BadInput(f"{method} does not serve a {request.kind} request: {chosen.refusal}")
    for client_id in request.named_clients:
        if client_id not in run.clients:
            raise BadInput(f"unknown client '{client_id}'; known clients: {', '.join(run.clients)}")
    for label in request.classes:
        if label >= run.num_groups:
            raise BadInput(f"unknown class {label}; the run has classes 0 to {run.num_groups - 1}")
    _check_positions(request, run.num_examples, run.plan.local_test_share)
    _check_not_forgotten(run, request)
    _check_remains(run, request)
    needed = chosen.needs(settings)
    _check_models(run, method, needed)
    check_strategy(run.plan.strategy.name, method, request.kind)
    _check_personal(run, method, needed)
    _check_private(run, method, needed)
    _check_prunes(run, chosen)
    _check_fresh(run, method, needed)
    _check_follows(run, method, needed)
    _check_log(run, method, needed)
    _check_purged(run, request, method, needed)
    if needed.public and run.public is None:
        raise BadInput(
            f"{method} needs public data on the server: set data.public to a share or the name of a data set"
        )
    return needed


def can_serve(run: TrainedRun, request: ForgetRequest, method: str, settings: ForgetSettings) -> bool:
    """Whether a method serves a request on a run, as far as `check_request` tells."""
    try:
        check_request(run, request, method, settings)
    except BadInput:
        return False
    return True


def _check_remains(run: TrainedRun, request: ForgetRequest) -> None:
    """Refuse what leaves nobody an example, as far as that is known without asking."""
    if set(run.clients) <= {*request.clients, *run.forgotten_clients}:
        raise BadInput("the request names every client: nobody would remain")
    drop = Drop.joined(each.drop for each in (request, *run.forgotten))
    if len(drop.classes) >= run.num_groups:
        raise BadInput("the request names every class: nobody would remain")
    left = {*run.clients} - {*request.clients, *run.forgotten_clients}
    if all(i in run.num_examples and len(drop.indices.get(i, ())) >= run.num_examples[i] for i in left):
        raise BadInput("the request names every example of every client: nobody would remain")


def _check_positions(request: ForgetRequest, num_examples: Mapping[str, int], aside: float) -> None:
    """Refuse positions that a client did not train on, and those that it does not have, if that is known."""
    for client_id, positions in request.samples.items():
        if held := [position for position in positions if is_held_out(aside, client_id, position)]:
            raise BadInput(
                f"example {held[0]} of client {client_id} was held out (data.local-test-share): the model "
                "was not trained on it, so there is nothing to forget"
            )
        count = num_examples.get(client_id)
        if count is not None and positions[-1] >= (size := count + most_held_out(aside, count)):
            most = f"at most {size}" if aside else f"{size}"
            raise BadInput(
                f"client {client_id} has {most} examples, at positions 0 to {size - 1}: got {positions[-1]}"
            )


def _check_prunes(run: TrainedRun, method: Method) -> None:
    if not method.prunes_anew:
        return
    if run.mask_origin not in CHOSEN_BY_DATA:
        raise BadInput(
            f"{method.name} needs a run that was pruned by {' or '.join(sorted(CHOSEN_BY_DATA))} "
            "(forget.prune); on any other run, retrain is exact"
        )
    if run.pruned_by is None:
        raise BadInput(
            f"{method.name}: how this run was pruned is not known; prune the run it came from anew"
        )


def _check_models(run: TrainedRun, method: str, needed: Needs) -> None:
    if run.client_models and needed.models == "global":
        able = [name for name, each in METHODS.items() if each.needs(ForgetSettings()).models != "global"]
        raise BadInput(
            f"{method} works on one model that all clients share, but with {run.plan.strategy.name} each has "
            f"its own; use {' or '.join(able)}"
        )
    if needed.models == "client" and not run.client_models:
        raise BadInput(
            f"{method} works on models that clients keep to themselves; {run.plan.strategy.name} has one "
            "for all"
        )


def _check_personal(run: TrainedRun, method: str, needed: Needs) -> None:
    if run.personal_models and needed.models != "any":
        raise BadInput(
            f"{method} changes the model that all clients share alone; with {run.plan.strategy.name} each "
            "also keeps a personal one, which was held near it; use retrain"
        )


def _check_private(run: TrainedRun, method: str, needed: Needs) -> None:
    """Refuse what would have clients work on their data less protected than the run promised."""
    visits = needed.remaining or needed.forgotten
    if run.plan.privacy.encryption != "none" and visits and method not in _TRAINS_AS_THE_RUN:
        raise BadInput(
            f"{method} has clients answer for themselves, in the clear, but the run's updates are encrypted; "
            "use retrain, which encrypts them as well"
        )
    if run.plan.privacy.secure_aggregation and visits and method not in _TRAINS_AS_THE_RUN:
        raise BadInput(
            f"{method} has clients answer for themselves alone, but the run was trained under secure "
            "aggregation, where the server gets sums only; use retrain, whose sums are masked as well"
        )
    if run.plan.privacy.on and visits and method not in _TRAINS_AS_THE_RUN:
        raise BadInput(
            f"{method} has clients answer without noise, but the run is private (privacy.unit = "
            f'"{run.plan.privacy.unit}"); use subtract, fast-fedul or distill, which visit '
            "nobody, or retrain, which spends each client's budget again"
        )


def _check_fresh(run: TrainedRun, method: str, needed: Needs) -> None:
    """Refuse what reads the log as rounds that waited for everybody, where they did not."""
    if needed.fresh and run.plan.strategy.traits.asynchronous:
        form = ' with forget.subtract.form = "renormalised"' if method == "subtract" else ""
        raise BadInput(
            f"{method}{form} takes every update as made from the model of its round, but with "
            f"{run.plan.strategy.name} they may be late; use subtract (lazy), distill from it, or retrain"
        )


def _check_not_forgotten(run: TrainedRun, request: ForgetRequest) -> None:
    earlier = Drop.joined(each.drop for each in run.forgotten)
    clients = [f"client {i}" for i in request.named_clients if i in run.forgotten_clients]
    classes = [f"class {label}" for label in request.classes if label in earlier.classes]
    samples = [
        f"example {position} of client {i}"
        for i, positions in request.samples.items()
        for position in positions
        if position in earlier.indices.get(i, ())
    ]
    if found := [*clients, *classes, *samples]:
        raise BadInput(f"{found[0]} was forgotten before: the model to start from was made without it")


def _check_follows(run: TrainedRun, method: str, needed: Needs) -> None:
    held = [each.name for each in run.forgotten if each.kind != "client"]
    if needed.rebuilds and held:
        raise BadInput(
            f"{method} cannot follow {held[0]}: it starts over from logged updates, which hold that"
        )


def _check_purged(run: TrainedRun, request: ForgetRequest, method: str, needed: Needs) -> None:
    if needed.log == "none" or run.log is None or not (purged := run.log.purged()):
        return
    for client_id in request.clients:
        if client_id in purged:
            raise BadInput(
                f"client {client_id} was forgotten and purged from the update log, {purged[client_id]}: "
                f"{method} needs its updates, which are erased; retrain needs none"
            )
    lost = [i for i in purged if i not in run.forgotten_clients]
    if needed.log != "sum" and lost:
        raise BadInput(
            f"{method} needs the others' updates, but those of client {lost[0]} were purged; start from a "
            f"model that was made without client {lost[0]}"
        )


def _check_log(run: TrainedRun, method: str, needed: Needs) -> None:
    if needed.log == "none":
        return
    if run.log is None:
        raise BadInput(f"{method} needs the update log, but the run was trained with log.enabled=false")
    if needed.log != "kept" and run.log.averaging_rounds() != run.log.rounds():
        raise BadInput(
            f"{method} needs rounds that averaged the clients' updates; "
            f"strategy {run.plan.strategy.name} did something else with them"
        )
    retention = run.log.retention
    if needed.log == "kept" and retention.kind in _SERVED_BY["kept"] and not run.log.kept_rounds():
        raise BadInput(f"{method} needs a logged round, but of {retention} none was kept yet")
    enough = retention.kind in _SERVED_BY[needed.log]
    if not enough and not all(retention.keeps(server_round) for server_round in run.log.rounds()):
        wanted = " or ".join(_SERVED_BY[needed.log])
        raise BadInput(f"{method} needs log.retention {wanted}, but the run kept '{retention}'")


def _check_online(
    method: str, request: ForgetRequest, needed: Needs, cohort: Cohort | None, aside: float
) -> None:
    if cohort is not None:
        known = {i: info.known_examples for i, info in cohort.clients.items()}
        counts = {i: count for i, count in known.items() if count is not None}
        _check_positions(request, counts, aside)
    if needed.remaining and cohort is None:
        raise BadInput(f"{method} needs the remaining clients online, but no client is connected")
    if needed.forgotten:
        for client_id in request.named_clients:
            if cohort is None or client_id not in cohort.clients:
                raise BadInput(
                    f"{method} needs client '{client_id}' online, which holds what shall be forgotten"
                )


def _absent(run: TrainedRun, request: ForgetRequest, needed: Needs, cohort: Cohort | None) -> list[str]:
    if not needed.remaining or cohort is None:
        return []
    gone = {*request.clients, *run.forgotten_clients, *cohort.clients}
    absent = [client_id for client_id in run.clients if client_id not in gone]
    return [f"client {', '.join(absent)} of the run did not take part: not connected"] if absent else []


def forget(
    run: TrainedRun,
    request: ForgetRequest,
    method: str,
    settings: ForgetSettings,
    cohort: Cohort | None = None,
    progress: Progress = lambda done, total, values: None,
    standing: Standing | None = None,
) -> ForgetResult:
    """Serve a request to forget; the run is not altered. What is pruned stays zero, here and on the clients.

    Parameters
    ----------
    run
        The finished run.
    request
        Clients, classes or samples by explicit ids.
    method
        A name of `METHODS`.
    settings
        The section ``forget`` of the run config.
    cohort
        Connected clients; None where the method needs none.
    progress
        Told how far the method is.
    standing
        What clients said of the request, where they were asked (see `unlearning.standing`).

    Raises
    ------
    BadInput
        If the request cannot be served, see `check_request`, or a client that is needed is not connected.
    LetheError
        If the new model is not finite.
    """
    needed = check_request(run, request, method, settings)
    _check_online(method, request, needed, cohort, run.plan.local_test_share)
    known = standing or offline_standing(run, request)
    if known.nothing:
        return _unchanged(run, request, method, settings, known)
    if cohort is not None and not METHODS[method].prunes_anew:
        cohort = cohort.masked(run.mask)
    before = cohort.traffic.copy() if cohort is not None else Traffic()
    attendance = None if cohort is None else Attendance(cohort)
    # A process's first optimiser imports torch's compiler, for a second: no part of any method's time.
    torch.optim.SGD([torch.zeros(1)])
    spent = run.spending.known() if run.plan.privacy.on else None
    began = time.perf_counter()
    with one_thread():
        outcome = METHODS[method].run(ForgetJob(run, request, settings, cohort, progress, known))
    seconds = time.perf_counter() - began
    new = spent_notes(run, spent)
    notes = [*outcome.notes, *new, *_absent(run, request, needed, cohort)]
    details = {**outcome.details, **({"spent-epsilons": spent_by(run)} if new else {})}
    if not bool(torch.isfinite(outcome.flat).all()):
        raise LetheError(f"{method} gave parameters that are not finite; lower forget.{method}.learning-rate")
    traffic = cohort.traffic.since(before) if cohort is not None else Traffic()
    mask = run.mask if outcome.mask is None else outcome.mask
    flat = outcome.flat if mask is None else outcome.flat * mask
    warnings = [*known.warnings, *(attendance.warnings(request.named_clients) if attendance else ())]
    notes += known.notes
    notes += [] if attendance is None else attendance.notes(request.named_clients, notes)
    return ForgetResult(
        flat,
        request,
        method,
        settings,
        seconds,
        traffic,
        tuple(warnings),
        tuple(notes),
        details,
        outcome.mask,
    )


def _unchanged(
    run: TrainedRun, request: ForgetRequest, method: str, settings: ForgetSettings, standing: Standing
) -> ForgetResult:
    """Return the model as it is, with a note that says why."""
    notes = (*standing.nothing, "the model is unchanged", *standing.notes)
    return ForgetResult(
        run.final.clone(),
        request,
        method,
        settings,
        0.0,
        Traffic(),
        standing.warnings,
        notes,
        {UNCHANGED: 1},
    )

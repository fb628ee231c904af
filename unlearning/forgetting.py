"""Serving a request: run the method that can, and say what it cost."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from strategies.core.errors import LetheError
from strategies.core.isolation import group_of
from strategies.core.seeds import seeded_layers
from strategies.server.aggregation import is_finite
from strategies.server.cohort import Cohort, Traffic
from strategies.threads import one_thread
from unlearning.attendance import Attendance
from unlearning.holdings import Holdings, logged_holdings
from unlearning.isolation import concerned_groups, served
from unlearning.methods import METHODS
from unlearning.methods.base import ForgetJob, Progress
from unlearning.request import ForgetRequest
from unlearning.requirements import check_online, check_request
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings
from unlearning.spending import spent_by, spent_notes
from unlearning.traits.base import UNCHANGED, Needs


@dataclass(frozen=True)
class ForgetResult:
    """The model after forgetting, and what it took.

    Parameters
    ----------
    flat
        New parameters, shape [P], float32.
    request, method, settings
        What was asked for.
    seconds, traffic
        Wall-clock time of the method alone; bytes and client visits.
    warnings
        Which clients that were needed failed, so that the request is perhaps not fully served.
    notes, details
        Remarks for people; numbers about the work, by name.
    mask
        Which parameters are left, shape [P], bool, if the method chose that anew; None: those of the run.
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
            "settings": self.settings.written_out(self.method),
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


def _absent(job: ForgetJob, method: str, needed: Needs) -> list[str]:
    run, request, cohort = job.run, job.request, job.cohort
    if not needed.remaining or cohort is None:
        return []
    groups = concerned_groups(run, request, job.holdings, whole=METHODS[method].is_reference)
    not_missing = {*request.clients, *run.forgotten_clients, *cohort.clients}
    asked = [client_id for client_id in run.clients if group_of(client_id, run.plan.isolation) in groups]
    absent = [client_id for client_id in asked if client_id not in not_missing]
    return [f"client {', '.join(absent)} of the run did not take part: not connected"] if absent else []


def forget(
    run: TrainedRun,
    request: ForgetRequest,
    method: str,
    settings: ForgetSettings,
    cohort: Cohort | None = None,
    progress: Progress = lambda done, total, values: None,
    holdings: Holdings | None = None,
) -> ForgetResult:
    """Serve a request to forget; the run is not altered, and pruned weights stay zero everywhere.

    Parameters
    ----------
    run, request
        The finished run, and clients, classes or samples by explicit ids.
    method, settings
        A name of `METHODS`, and the section ``forget`` of the run config.
    cohort
        Connected clients; None where the method needs none.
    progress
        Receives how far the method is.
    holdings
        What clients said that they hold of the request, if they were asked (see `unlearning.holdings`).

    Raises
    ------
    BadInput
        If the request cannot be served, see `check_request`, or a client that is needed is not connected.
    LetheError
        If the new model is not finite.
    """
    needed = check_request(run, request, method, settings)
    check_online(method, request, needed, cohort, run.plan.local_test_share)
    known = holdings or logged_holdings(run, request)
    if known.nothing_to_forget:
        return _unchanged(run, request, method, settings, known)
    if cohort is not None and not METHODS[method].prunes_anew:
        cohort = cohort.masked(run.mask)
    before = cohort.traffic.copy() if cohort is not None else Traffic()
    attendance = None if cohort is None else Attendance(cohort)
    # A process's first optimiser imports torch's compiler, for a second: no part of any method's time.
    torch.optim.SGD([torch.zeros(1)])
    spent = run.spending.known() if run.plan.privacy.on else None
    began = time.perf_counter()
    job = ForgetJob(run, request, settings, cohort, progress, known)
    with one_thread(), seeded_layers(job.generator("layers", method), run.device):
        outcome = served(METHODS[method], job)
    seconds = time.perf_counter() - began
    new = spent_notes(run, spent)
    notes = [*outcome.notes, *new, *_absent(job, method, needed)]
    details = {**outcome.details, **({"spent-epsilons": spent_by(run)} if new else {})}
    if not is_finite(outcome.flat):
        raise LetheError(f"{method} gave parameters that are not finite; lower forget.{method}.learning-rate")
    traffic = cohort.traffic.since(before) if cohort is not None else Traffic()
    mask = run.mask if outcome.mask is None else outcome.mask
    flat = outcome.flat if mask is None else outcome.flat * mask
    flat = run.settled(flat)
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
    run: TrainedRun, request: ForgetRequest, method: str, settings: ForgetSettings, holdings: Holdings
) -> ForgetResult:
    """Return the model as it is, with a note that says why."""
    notes = (*holdings.nothing_to_forget, "the model is unchanged", *holdings.notes)
    return ForgetResult(
        run.final.clone(),
        request,
        method,
        settings,
        0.0,
        Traffic(),
        holdings.warnings,
        notes,
        {UNCHANGED: 1},
    )

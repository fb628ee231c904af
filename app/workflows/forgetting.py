"""Serves requests to forget on a finished run, and measures what the methods left of the forgotten data."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from flwr.serverapp import Grid

from app.forgettings.folder import forgetting_name, has_forgetting, read_audit, read_result
from app.workflows import shadows
from app.workflows.observer import Observer
from app.workflows.opened import OpenedRun
from app.workflows.recording import recorded, results_of_audit
from app.workflows.removing import on_run
from strategies.core.errors import BadInput
from strategies.runs.folder import RunFolder
from unlearning import requirements
from unlearning.audit.audit import AuditReport
from unlearning.default_method import PREFERRED, with_method
from unlearning.pruning import sparse_path
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import AUTO, AuditSettings, ForgetSettings


@on_run
def forget(
    folder: RunFolder,
    request: ForgetRequest,
    settings: ForgetSettings,
    observer: Observer | None = None,
    grid: Grid | None = None,
    after: str = "",
) -> str:
    """Serve a request to forget on a finished run; return the name of its folder under ``forget/``.

    The run itself is not altered. With ``prune``, the method works on the pruned run, which is made if
    necessary (see `app.workflows.pruning`), and the forgetting lies under ``forget/`` in that run's folder. A
    signed certificate of what was done lies beside the model. `after` names an earlier forgetting, whose
    model is started from and whose requests stay served; empty: the run's own model. Without a grid, the
    clients start in this process tree.

    Raises
    ------
    BadInput
        If the request cannot be served, before any work.
    """
    opened = OpenedRun.of(folder, observer)
    settings = choose_method(folder, request, settings, after)
    if settings.prune != "none":
        to_be = replace(opened.run, mask_origin=settings.prune, pruned_by=settings)
        requirements.check_request(to_be, request, settings.method, settings)
        opened.check_before_pruning(request, settings, grid, after)
        opened.key()  # Said before any work, and made for nothing that is refused
    name = forgetting_name(request, settings.method, after)
    with recorded(folder, opened.session.config, "forget", name, opened.observer) as recorder:
        opened = replace(opened, observer=recorder).pruned(settings, grid).following(after)
        opened.serve(request, settings, grid)
        result = read_result(opened.folder.forget_folder(name))
        recorder.results({key: result[key] for key in ("method", "seconds", "traffic")})
    return name


def choose_method(
    folder: RunFolder, request: ForgetRequest, settings: ForgetSettings, after: str = ""
) -> ForgetSettings:
    """Return the section ``forget`` with the method named that serves, or has served, a request on a run.

    A request that was served keeps its method, even if a purge has erased what that needs. With ``prune``,
    `folder` is the run to prune. `after` is as for `forget`.

    Raises
    ------
    BadInput
        If the request cannot be served.
    """
    if settings.method != AUTO:
        return settings
    sparse = RunFolder(sparse_path(folder, settings))
    for method in PREFERRED:
        named = settings.model_copy(update={"method": method})
        if has_forgetting(sparse, forgetting_name(request, method, after), named):
            return named
    opened = OpenedRun.of(sparse if after else folder, None).following(after)
    return with_method(opened.run, request, settings)


@on_run
def audit(
    folder: RunFolder,
    request: ForgetRequest,
    methods: Sequence[str],
    settings: AuditSettings,
    observer: Observer | None = None,
    grid: Grid | None = None,
    after: str = "",
) -> AuditReport:
    """Measure what methods left of the forgotten data, against retraining without it.

    Retrains first if that was not done for this request; writes ``audit.json`` into each method's folder, and
    the certificate anew. After an earlier forgetting, all models are also measured on what that forgot.

    Raises
    ------
    BadInput
        If a method has not been run for the request, or the request is not one of this run.
    """
    opened = OpenedRun.of(folder, observer).following(after).auditing(settings)
    requirements.check_request(opened.run, request, "retrain", opened.session.config.forget)
    for method in methods:
        requirements.find_method(method)
        if method != "retrain":
            opened.check_made(request, method)
    inexact = [method for method in methods if method != "retrain"]
    settings = _no_less(settings, opened, request, inexact)
    if settings.shadows:
        shadows.check_shadows(opened.run, folder, request, after)
        _check_shadowed(settings, inexact)
    if settings.relearn:
        _check_relearning(opened.run, folder, request)
    with recorded(folder, opened.session.config, "audit", request.name, opened.observer) as recorder:
        opened = replace(opened, observer=recorder)
        made = shadows.made(opened, request, inexact, settings, grid) if inexact else []
        with opened.session.cohort(grid) as cohort:
            cohort.tell(recorder.answered)
            attack = partial(shadows.attacked, opened, request, inexact, made, cohort)
            report = opened.audit(request, methods, settings, cohort, attack)
        paths = {each: opened.folder.forget_folder(opened.name_of(request, each)) for each in methods}
        written = {each: found for each, path in paths.items() if (found := read_audit(path)) is not None}
        recorder.results({each: results_of_audit(found) for each, found in written.items()})
    return report


def _no_less(
    settings: AuditSettings, opened: OpenedRun, request: ForgetRequest, methods: Sequence[str]
) -> AuditSettings:
    """Return settings that measure what the audits that are there did as well: none of it is to be lost."""
    paths = [opened.folder.forget_folder(opened.name_of(request, method)) for method in methods]
    known = [found for path in paths if (found := read_audit(path)) is not None]
    attacked = [shadows for found in known if (shadows := found.get("shadows"))]
    pairs = max((shadows["forgotten"]["pairs"] for shadows in attacked), default=0)
    bits = {int(bits) for found in known for bits in found.get("rounded", ())} | set(settings.rounding_bits)
    rounding = ",".join(map(str, sorted(bits, reverse=True)))
    rounds = max((found["relearned"]["most"] for found in known if found.get("relearned")), default=0)
    more = settings.model_copy(
        update={
            "shadows": max(pairs, settings.shadows),
            "rounding": rounding,
            "relearn": max(rounds, settings.relearn),
        }
    )
    grown = more.shadows > settings.shadows or more.relearn > settings.relearn
    if grown or len(bits) > len(set(settings.rounding_bits)):
        opened.observer.note(
            f"an earlier audit of {request.name} went further (audit.shadows={more.shadows}, "
            f'audit.rounding="{rounding}", audit.relearn={more.relearn}): this one does so too, so that '
            "nothing that was found is lost"
        )
    return more


def _check_relearning(run: TrainedRun, folder: RunFolder, request: ForgetRequest) -> None:
    """Refuse to train with the forgotten data again where that cannot, or must not, be.

    Raises
    ------
    BadInput
        Naming the reason.
    """
    if run.client_models or run.personal_models:
        raise BadInput(f"audit.relearn: {request.name} needs one model that all clients share; allowed 0")
    if gone := sorted({*shadows.purged(folder)} & {*request.named_clients}):
        raise BadInput(f"audit.relearn: client {gone[0]} is purged, and is not trained with again; allowed 0")


def _check_shadowed(settings: AuditSettings, methods: Sequence[str]) -> None:
    if not methods:
        raise BadInput(
            f"audit.shadows: given {settings.shadows}, but retraining is what shadow models compare with; "
            "allowed with another method"
        )

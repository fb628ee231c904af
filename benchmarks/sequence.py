"""Several clients forgotten one after another by the default method, each step against retraining."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.workflows.opened import OpenedRun
from benchmarks.figures import spread
from strategies.core.errors import LetheError
from strategies.server.cohort import Cohort
from unlearning import forgetting
from unlearning.audit.audit import ORIGINAL, AuditedModel, audit
from unlearning.default_method import with_method
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import AuditSettings, ForgetSettings

RETRAIN = "retrain"


def sequence_rows(seeds: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row per request of a sequence: its disparity after the others and alone, over the seeds.

    Parameters
    ----------
    seeds
        Per seed what `disparities` returns; none: no row.
    """
    return [
        {
            "step": number + 1,
            "client": steps[0]["client"],
            "after others": spread(step["after_others"] for step in steps),
            "alone": spread(step["alone"] for step in steps),
        }
        for number, steps in enumerate(zip(*seeds, strict=True))
    ]


def disparities(opened: OpenedRun, clients: Sequence[str]) -> list[dict[str, Any]]:
    """Forget clients one after another, and each alone, by the run's default method.

    Of each ``client`` the disparity to retraining is returned, in points: ``after_others``, after the clients
    before it, and ``alone``.

    Parameters
    ----------
    opened
        A finished run.
    clients
        Client-ids, in the order of the requests.

    Raises
    ------
    LetheError
        If a disparity cannot be had because a figure was not measured.
    """
    steps = []
    with opened.session.cohort(None) as cohort:
        run = opened.run
        for client in clients:
            request = ForgetRequest(clients=(client,))
            settings = with_method(run, request, opened.session.config.forget)
            opened.observer.phase(f"forget client {client} after {len(run.forgotten)} others", 2)
            disparity, following = _served(run, request, settings, cohort)
            opened.observer.advance("after others")
            alone = _served(opened.run, request, settings, cohort)[0] if run.forgotten else disparity
            opened.observer.advance("alone")
            steps.append({"client": client, "after_others": disparity, "alone": alone})
            run = following
    return steps


def _served(
    run: TrainedRun, request: ForgetRequest, settings: ForgetSettings, cohort: Cohort
) -> tuple[float, TrainedRun]:
    """Return a request's disparity, and the run as the next request finds it."""
    made = {
        name: forgetting.forget(run, request, name, settings, cohort) for name in (settings.method, RETRAIN)
    }
    models = {name: AuditedModel(result.flat, result.seconds) for name, result in made.items()}
    report = audit(
        run,
        request,
        {ORIGINAL: AuditedModel(run.final, run.train_seconds), **models},
        cohort,
        AuditSettings(),
    )
    disparity = report.comparisons[settings.method].disparity
    if disparity is None:
        raise LetheError(f"{request.name}: a rate could not be measured, so there is no disparity")
    following = replace(run, final=made[settings.method].flat, forgotten=(*run.forgotten, request))
    return disparity, following

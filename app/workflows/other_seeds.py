"""Retrainings with other seeds: they all differ, and their distance is the scale for other methods."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from app.workflows.session import Session
from strategies.runs.folder import OTHER_SEED
from strategies.runs.tensor_file import read_sealed, write_sealed
from strategies.server.cohort import Cohort
from unlearning import forgetting
from unlearning.audit.audit import AuditedModel, AuditReport
from unlearning.holdings import ask_holdings
from unlearning.methods.base import Progress
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun

PREFIX = OTHER_SEED
"""Begins the name of such a model in an audit; the seed follows."""


def seeds_of(run: TrainedRun, count: int) -> list[int]:
    """Return the seeds of `count` retrainings: those that follow the run's own.

    -1 means one if it costs nothing but time. It is impossible if clients have models of their own, and if
    the run is private it would be another release, which ε does not count.
    """
    if count < 0:
        count = 0 if run.client_models or run.personal_models or run.privacy is not None else 1
    return [run.seed + number for number in range(1, count + 1)]


def with_seed(run: TrainedRun, session: Session, seed: int) -> TrainedRun:
    """Return a run that starts from other weights and selects other clients, on the same data.

    A pruned run keeps its initial weights: a mask fits those that it was found with, and others train badly
    on it (Frankle and Carbin, ICLR 2019, arXiv 1803.03635, section 2).
    """
    plan = replace(run.plan, seed=seed)
    if run.mask is not None:
        return replace(run, plan=plan)
    initial = run.layout.flatten(session.model_of(seed).state_dict())
    return replace(run, plan=plan, initial=initial, all_groups=True)


def retrained_with(
    folder: Path,
    session: Session,
    run: TrainedRun,
    request: ForgetRequest,
    seed: int,
    cohort: Cohort,
    progress: Progress,
) -> AuditedModel:
    """Return the model retrained for a request with another seed; made once and kept beside `retrain`.

    `folder` is that of the model retrained with the run's own seed; the seed decides the weights, the
    selection and the clients' batches; `cohort` holds all clients.
    """
    path = folder / f"{PREFIX}{seed}.safetensors"
    if path.exists():
        kept = read_sealed(path)
        return AuditedModel(run.layout.flatten(kept.tensors), float(kept.metadata["seconds"]))
    other = with_seed(run, session, seed)
    settings = session.config.forget
    holdings = ask_holdings(run, request, cohort)
    result = forgetting.forget(other, request, "retrain", settings, cohort.seeded(seed), progress, holdings)
    write_sealed(path, run.layout.unflatten(result.flat), {"seconds": repr(result.seconds)})
    return AuditedModel(result.flat, result.seconds)


def scale(report: AuditReport) -> dict[str, Mapping[str, float | None]]:
    """Return how far the retrainings with other seeds are from the one with the run's own seed, by name."""
    return {
        name: {
            "disparity": comparison.disparity,
            "disparity_without_mia": comparison.disparity_without_mia,
            "parameter_distance": comparison.parameter_distance,
            "last_layer_angle": comparison.last_layer_angle,
        }
        for name, comparison in report.comparisons.items()
        if name.startswith(PREFIX)
    }

"""A finished run as the forgetting methods see it, read from its folder."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from app.workflows.accounts import RunAccounts
from app.workflows.fresh_seeds import fresh_seed
from app.workflows.session import Session
from strategies.core import wire
from strategies.core.errors import BadInput, RunCorrupt
from strategies.log.update_log import UpdateLog
from strategies.models import travelling
from strategies.models.mask import flat_mask_of
from strategies.plan import TrainingPlan
from strategies.runs.folder import RunFolder
from unlearning.pruning import read_pruning
from unlearning.run import TrainedRun


def open_trained_run(folder: RunFolder, session: Session) -> TrainedRun:
    """Return a finished run as the forgetting methods see it.

    Raises
    ------
    BadInput
        If the run is not finished.
    RunCorrupt
        If one of its files is damaged.
    """
    summary = folder.read_summary()
    final = folder.read_model()
    layout = wire.Layout.of(final)
    check_architecture(session, layout)
    log = UpdateLog.open(folder.log_path) if session.config.log.enabled else None
    masks = folder.read_mask()
    data = session.server_data
    return TrainedRun(
        plan=_plan_of(session, summary),
        train=session.config.train,
        build_model=session.model,
        layout=layout,
        initial=layout.vector_of(folder.read_initial()),
        final=layout.vector_of(final),
        log=log,
        num_groups=data.num_groups,
        task=session.task,
        public=data.public,
        test=data.test,
        trigger=session.trigger,
        staged=session.staged,
        client_models=session.has_client_models,
        personal_models=session.has_personal_models,
        clients=_clients_of(session, summary),
        forgotten=session.forgotten,
        num_examples={
            i: int(known["num-examples"])
            for i, known in summary["clients"].items()
            if "num-examples" in known
        },
        train_seconds=float(summary["seconds"]),
        device=session.device,
        mask=read_mask(folder, layout),
        privacy=summary.get("privacy"),
        mask_origin="" if masks is None else masks.metadata["origin"],
        pruned_by=read_pruning(folder),
        seeded_model=session.model_of,
        given_weights=bool(session.config.model.weights),
        precision=session.config.run.precision,
        all_groups=bool(session.forgotten),
        local_layers=session.config.model.has_local_layers,
        spending=RunAccounts(folder, session.config.privacy),
        fresh_seed=partial(fresh_seed, folder, session.config.run.seed, "after the run"),
    )


def check_architecture(session: Session, layout: wire.Layout) -> None:
    """Refuse a run whose project builds another model by now."""
    if session.work.project.model is None or session.has_client_models:
        return
    built = wire.record_of(travelling.travelling(session.model()))
    if (difference := layout.difference(built)) is not None:
        raise BadInput(
            f"run.project: its model is not that of the run any more: {difference}; go back to the code that "
            "the run was made with"
        )


def read_mask(folder: RunFolder, layout: wire.Layout) -> Tensor | None:
    """Return the mask of a pruned run, shape [layout.size], bool; None for a dense run.

    Raises
    ------
    RunCorrupt
        If the file is damaged, or is of another model.
    """
    kept = folder.read_mask()
    try:
        return None if kept is None else flat_mask_of(kept.tensors, layout)
    except ValueError as error:
        raise RunCorrupt(f"{folder.path}: {error}") from None


def _plan_of(session: Session, summary: Mapping[str, Any]) -> TrainingPlan:
    """Return the plan of a finished run, whose model may be of fewer rounds than were planned."""
    plan = session.plan
    rounds = int(summary.get("completed-rounds", plan.rounds))
    return plan if rounds == plan.rounds else replace(plan, rounds=rounds, horizon=plan.rounds)


def _clients_of(session: Session, summary: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the clients that a run knows, those that it is trained without included."""
    gone = (client_id for request in session.forgotten for client_id in request.clients)
    return tuple(dict.fromkeys([*summary["clients"], *gone]))

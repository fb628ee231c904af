"""Asks the clients of a federation how much they differ: labels, gradients, drift, sizes and speeds."""

from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from app.config.run_config import RunConfig
from app.data.record import project_folder_of
from app.workflows.observer import Observer, Quiet
from app.workflows.session import Session
from strategies.analytics.diagnosis import SECONDS, Diagnosis, Evidence, findings
from strategies.core import wire
from strategies.core.conditions import shown
from strategies.core.errors import BadInput, LetheError
from strategies.layers.compression.settings import CompressionSettings
from strategies.models import travelling
from strategies.runs.folder import RunFolder
from strategies.server.clock import Clock
from strategies.server.cohort import Cohort
from strategies.server.guard import Reference, Rejected, check_reply
from strategies.settings import StrategySettings

GRADIENT = "query.gradient"
"""Message type. Brings a model; asks for the gradient of the client's mean loss and the time it trains."""


def diagnose(
    config: RunConfig,
    folder: RunFolder | None = None,
    observer: Observer | None = None,
    grid: Grid | None = None,
) -> Diagnosis:
    """Diagnose a federation before training, at the initial model, or a finished run at its final model.

    `config` is that of the run; `folder` is None before training; without a grid, the clients start in this
    process tree.

    Raises
    ------
    BadInput
        If the clients have no common model, or the run is private.
    LetheError
        If no client answers.
    """
    if not config.strategy.traits.one_model:
        raise BadInput(
            f"strategy.name: given {shown(config.strategy.name)}, but diagnose compares clients on one model "
            "for all"
        )
    if config.privacy.on:
        raise BadInput(
            f'privacy.unit: given "{config.privacy.unit}", but diagnose has clients send gradients without '
            'noise; allowed "none"'
        )
    if config.privacy.secure_aggregation:
        raise BadInput(
            "privacy.secure-aggregation: given true, but diagnose shows the server each client's gradient; "
            "allowed false"
        )
    if config.privacy.encryption != "none":
        raise BadInput(
            f'privacy.encryption: given "{config.privacy.encryption}", but diagnose has clients send '
            'gradients in the clear; allowed "none"'
        )
    speeds = config.selection.speeds
    plain = {"strategy": StrategySettings(), "compression": CompressionSettings()}
    if folder is None:
        session = Session.of(config, grid)
    else:
        session = Session.load(config, project_folder_of(folder), recorded=True)
    session.config = session.config.model_copy(update=plain)
    observer = observer or Quiet()
    observer.phase("diagnose", 2)
    state = travelling.travelling(session.model()) if folder is None else folder.read_model()
    with session.cohort(grid) as cohort:
        cohort.tell(observer.answered)
        evidence = _evidence(cohort, wire.record_of(state), observer, Clock(speeds, config.run.seed))
        faults = [f"client {f.client_id}, {f.scope}: {f.reason}" for f in cohort.faults]
    return Diagnosis(findings(evidence), faults)


def _evidence(cohort: Cohort, arrays: ArrayRecord, observer: Observer, clock: Clock) -> Evidence:
    deltas, _ = _asked(cohort, wire.TRAIN, arrays)
    observer.advance("local training")
    gradients, seconds = _asked(cohort, GRADIENT, arrays)
    observer.advance("gradients")
    both = [i for i in deltas if i in gradients]
    if not both:
        raise LetheError("diagnose: no client answered both questions")
    clients = cohort.clients
    if clock.speeds != "none":
        seconds = {i: clock.seconds(i, clients[i].num_examples) for i in both}
    return Evidence(
        {i: clients[i].label_counts for i in both},
        {i: gradients[i] for i in both},
        {i: deltas[i] for i in both},
        {i: seconds[i] for i in both},
    )


def _asked(
    cohort: Cohort, message_type: str, arrays: ArrayRecord
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return the replies minus the model sent, and the seconds, by client-id."""
    content = RecordDict({wire.ARRAYS: arrays, wire.CONFIG: ConfigRecord({wire.SERVER_ROUND: 1})})
    reference = Reference.of(arrays)
    changes: dict[str, Tensor] = {}
    seconds: dict[str, float] = {}
    for reply in cohort.ask(message_type, content, scope="diagnose"):
        try:
            update = check_reply(reply.message, reference)
        except Rejected as reason:
            cohort.add_fault(reply.client_id, "diagnose", str(reason))
            continue
        changes[reply.client_id] = update.delta
        seconds[reply.client_id] = update.metrics.get(SECONDS, 0.0)
    return changes, seconds

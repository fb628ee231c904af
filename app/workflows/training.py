"""Trains a model and leaves a run folder; resumes an interrupted run."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from flwr.serverapp import Grid

from app.client.encryption_key import require_library
from app.client.node import asked_epsilon, scoring_of
from app.config.run_config import RunConfig
from app.data.record import InputRecord, with_absolute_paths, write_inputs, write_record
from app.forgettings.folder import unpruned
from app.forgettings.origin import read_origin, weights_origin, write_origin
from app.workflows import session as sessions
from app.workflows.analytics import label_distribution
from app.workflows.disk import check_log_fits, check_rest_fits
from app.workflows.observer import Observer, Quiet
from app.workflows.recording import Recorder, add_notes, recorded
from app.workflows.removing import removed_if_refused
from app.workflows.scaling import write_scale, write_target_scale
from app.workflows.session import Session
from app.workflows.training_rounds import ANALYTICS, TRAINED, Training
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.isolation import empty_groups
from strategies.layers.privacy.checks import check_feasible, planned_rounds
from strategies.log.update_log import UpdateLog
from strategies.models import travelling
from strategies.models.ensemble import member_layout
from strategies.plan import Start
from strategies.registry import lookup
from strategies.runs.files import write_json
from strategies.runs.folder import MODEL, RunFolder
from strategies.runs.run_lock import in_use
from strategies.server.cohort import Cohort
from strategies.server.grids import StatefulGrid


def train(
    config: RunConfig,
    observer: Observer | None = None,
    grid: Grid | None = None,
    *,
    clients_have_it: bool = True,
) -> RunFolder:
    """Train a model and leave a run folder; without a grid, the clients start in this process tree.

    If the config does not say how many clients, there are as many as in the simulation, or 10.

    Parameters
    ----------
    clients_have_it
        Whether the clients behind the grid were started with this config; if not, each message brings it.

    Raises
    ------
    BadInput
        If something in the config cannot be had.
    LetheError
        If too few clients can be used, or the disk does not take the results.
    """
    config = with_absolute_paths(config)
    if config.privacy.encryption != "none":
        require_library()
    session = Session.of(config, grid)
    session.brings_config = not clients_have_it
    observer = observer or Quiet()
    for note in session.notes:
        observer.note(note)
    with session.cohort(grid) as cohort:
        if not session.config.data.clients:
            partitions = max((c.num_partitions for c in cohort.clients.values()), default=0)
            session.config = session.config.with_overrides([f"data.clients={partitions}"])
        _check_named_clients(session, cohort)
        _check_states(session, cohort)
        _check_privacy(session, cohort)
        _note_figures(session, cohort, observer)
        # Refuses, before all else, what cannot be built; it is made anew later, as it may be large
        layout, _ = wire.Layout.of(session.initial_state()), session.plan
        check_log_fits(session.config, len(cohort.clients), _logged(session, layout).size, observer)
        _note_groups(session, cohort, observer)
        cohort.client_config[wire.KEEP_TAGS] = 1
        folder = RunFolder.create(
            session.config.run.home,
            session.config.run.name,
            session.config.to_toml(),
            session.config.strategy.name,
        )
        with removed_if_refused(folder):
            _record(folder, session)
            if grid is not None:
                cohort.client_config[wire.RUN_ID] = folder.run_id
            if session.config.analytics.enabled:
                write_json(folder.path / ANALYTICS, label_distribution(session, cohort))
            train_in(folder, session, cohort, session.initial_state, observer)
    return folder


def _record(folder: RunFolder, session: Session) -> None:
    """Write down what a new run's data, weights and scales are."""
    write_record(folder, session.config, session.server_data.class_names, session.work.project_record)
    if (origin := weights_origin(session.config.model.weights)) is not None:
        write_origin(folder, origin)
    record = InputRecord(session.server_data.forms, session.work.standard_scale())
    write_inputs(folder, session.work.schema(session.server_data), record)
    write_scale(folder, session.scale)
    write_target_scale(folder, session.learnt_target_scale, session.config.analytics.epsilon)


def train_in(
    folder: RunFolder,
    session: Session,
    cohort: Cohort,
    initial: Callable[[], wire.State],
    observer: Observer,
) -> None:
    """Train from the first round on, into the folder of a new run; if it has a mask, on that mask.

    `initial` returns the model before the first round; `cohort` is connected.
    """
    with in_use(folder.path, alone=True):
        folder.write_staying(session.staying)
        layout = _written(folder, initial())
        with (
            _recorded(folder, session, observer) as recorder,
            _new_log(session, folder, _logged(session, layout)) as log,
        ):
            start = Start(lambda: wire.record_of(folder.read_initial()))
            Training(session, folder, cohort, log, recorder).run(start, layout)


def _written(folder: RunFolder, initial: wire.State) -> wire.Layout:
    """Write the model before the first round; return its layout."""
    folder.write_initial(initial)
    return wire.Layout.of(initial)


def resume(folder: RunFolder, observer: Observer | None = None, grid: Grid | None = None) -> RunFolder:
    """Continue an interrupted run after its last complete round, to the model it would have given.

    Raises
    ------
    BadInput
        If the run is finished.
    RunCorrupt
        If one of its files is damaged.
    """
    if (folder.path / MODEL).exists():
        raise BadInput(f"run '{folder.name}' is finished: {folder.path / MODEL} is there; nothing to resume")
    with in_use(folder.path, alone=True):
        _continue(folder, observer or Quiet(), grid)
    return folder


def _continue(folder: RunFolder, observer: Observer, grid: Grid | None) -> None:
    session = sessions.open_session(folder)
    for note in session.notes:
        observer.note(note)
    checkpoint, origin = folder.read_checkpoint(), read_origin(folder)
    if checkpoint is None and origin is not None and origin.how == "continued":
        raise BadInput(
            f"run '{folder.name}': it was to go on from {origin.place}, and is half written; remove it "
            "(lethe rm) and go on from there again"
        )
    last = checkpoint.round if checkpoint else 0
    folder.rewind_metrics(int(checkpoint.extra.get(TRAINED, last)) if checkpoint else 0)
    state = checkpoint.state if checkpoint else _initial(folder, session)
    layout = wire.Layout.of(state)
    logged = _logged(session, layout)
    check_rest_fits(session.config, len(session.nodes), logged.size, last, folder.path, observer)
    with (
        _recorded(folder, session, observer, last) as recorder,
        _old_log(session, folder, logged, last) as log,
        session.cohort(grid) as connected,
    ):
        cohort = session.in_training(connected)
        if unpruned(folder) is folder:  # A pruned run has the data of the run it came from
            cohort.client_config[wire.KEEP_TAGS] = 1
        training = Training(session, folder, cohort, log, recorder)
        if checkpoint:
            training.restore(checkpoint)
        tensors = checkpoint.tensors if checkpoint else {}
        privacy = checkpoint.extra.get("privacy") if checkpoint else None
        neurons = checkpoint.extra.get("neurons", {}) if checkpoint else {}
        start = Start(lambda: wire.record_of(state), last, tensors, privacy, neurons)
        training.run(start, layout)


@contextmanager
def _recorded(
    folder: RunFolder, session: Session, observer: Observer, completed: int = 0
) -> Iterator[Recorder]:
    """Record a training; what went wrong with its trackers is a note of the summary."""
    with recorded(folder, session.config, "train", folder.name, observer, completed) as recorder:
        yield recorder
    add_notes(folder, recorder.problems)


def _note_groups(session: Session, cohort: Cohort, observer: Observer) -> None:
    """Say so where a group has no client, and the ensemble no model of it."""
    if empty := empty_groups(cohort.clients, session.isolation):
        observer.note(
            f"train.isolation: no client is in group {', '.join(map(str, empty))} of {session.isolation}, so "
            f"the ensemble has {session.isolation - len(empty)} members"
        )


def _logged(session: Session, layout: wire.Layout) -> wire.Layout:
    """Return the layout of what a client sends: that of its group's model, where groups are trained apart."""
    return member_layout(layout, session.isolation)


def _new_log(
    session: Session, folder: RunFolder, layout: wire.Layout
) -> AbstractContextManager[UpdateLog | None]:
    settings = session.config.log
    if not settings.enabled:
        return nullcontext()
    return UpdateLog.create(folder.log_path, layout, settings.retention, settings.dtype, settings.keys_path)


def _initial(folder: RunFolder, session: Session) -> wire.State:
    """Return the model before the first round; made anew if the run was killed before it was written."""
    if not folder.has_initial and folder.read_mask() is None:
        folder.write_staying(session.staying)
        folder.write_initial(travelling.travelling(session.model()))
    return folder.read_initial()


def _old_log(
    session: Session, folder: RunFolder, layout: wire.Layout, last_round: int
) -> AbstractContextManager[UpdateLog | None]:
    if not session.config.log.enabled:
        return nullcontext()
    if last_round == 0 and not UpdateLog.exists(folder.log_path):
        return _new_log(session, folder, layout)
    log = UpdateLog.open(folder.log_path, write=True)
    log.rewind(last_round)
    return log


def _note_figures(session: Session, cohort: Cohort, observer: Observer) -> None:
    """Say so where neither the server nor any client has test data."""
    at_the_server = session.server_data.test is not None or session.has_client_models
    share = session.config.data.local_test_share
    if not (at_the_server or share > 0 or any(info.num_test for info in cohort.clients.values())):
        observer.note(
            "there are no test data, so no figures are measured: give the server some (test), or let the "
            "clients hold out a share (data.local-test-share)"
        )


def _check_named_clients(session: Session, cohort: Cohort) -> None:
    """Refuse a config that names an unknown client, as it would have no effect."""
    strategy = session.config.strategy
    named = {
        "attack.clients": session.attackers,
        "hard.clients": session.config.hard.client_ids,
        **lookup(strategy.name).named_clients(strategy),
    }
    for key, clients in named.items():
        if absent := [i for i in clients if i not in cohort.clients]:
            if said := [f.reason for f in cohort.faults if f.client_id == absent[0]]:
                raise BadInput(f"{key}: client {absent[0]} cannot be used: {said[-1]}")
            raise BadInput(f"{key}: no client '{absent[0]}'; known clients: {', '.join(cohort.clients)}")


def _check_states(session: Session, cohort: Cohort) -> None:
    """Refuse to keep an earlier round where clients keep models that only they could go back with."""
    gone_back = session.has_personal_models and isinstance(cohort.grid, StatefulGrid)
    if session.config.run.keep == "best" and session.has_personal_models and not gone_back:
        raise BadInput(
            f'run.keep: given "best", but with {session.config.strategy.name} each client also keeps a '
            "personal model at its node, which stays that of the last round; allowed in one process "
            '(lethe train), or "last"'
        )


def _check_privacy(session: Session, cohort: Cohort) -> None:
    config, examples = session.config, {i: c.num_examples for i, c in cohort.clients.items()}
    rounds = planned_rounds(config.run.rounds, config.selection)
    asked = asked_epsilon(config)
    check_feasible(config.privacy, config.train, rounds, examples, scoring_of(config), asked)
    if config.privacy.unit == "example":
        from strategies.layers.privacy.models import require_private  # Opacus takes a second

        require_private(session.model(), config.privacy.engine)

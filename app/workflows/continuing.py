"""Goes on with a finished run, or with what a forgetting left of it, in a run folder of its own.

The new folder begins as a copy of the run up to its last round, as an interrupted run would lie there, and is
then resumed. So it holds both parts: one log from the first round on, from which a client of either part can
be forgotten. The run that it comes from is not altered: its certificates stay true. After a forgetting, what
was forgotten takes no part any more, and its updates are purged from the copy of the log.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flwr.serverapp import Grid

from app.config.run_config import RunConfig, parse_overrides
from app.data.record import COLUMNS, DATA, INPUTS, check_project
from app.forgettings.folder import outermost
from app.forgettings.names import parsed_place
from app.forgettings.origin import Origin, write_origin
from app.messages import codec
from app.workflows import session as sessions
from app.workflows.disk import check_rest_fits
from app.workflows.judging import JUDGED
from app.workflows.observer import Observer, Quiet
from app.workflows.removing import on_run, remove
from app.workflows.session import Session
from app.workflows.training import resume
from app.workflows.training_rounds import ANALYTICS, TRAINED
from strategies.client.data_tags import tags_in
from strategies.core import wire
from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar
from strategies.core.wire import State
from strategies.log.copying import copy_log
from strategies.models.ensemble import member_layout
from strategies.runs.checkpoint import Checkpoint
from strategies.runs.folder import MODEL, SCALE, TARGET_SCALE, RunFolder
from strategies.runs.home import expand
from strategies.runs.tensor_file import read_sealed

ALLOWED = ("run.name", "run.home", "run.workers", "run.device", "run.round-timeout")
"""Keys that may differ from the run's: they decide nothing about the model."""
_COPIED = (DATA, COLUMNS, INPUTS, ANALYTICS, SCALE, TARGET_SCALE)


def find_place(given: str, home: Path | None) -> tuple[RunFolder, str]:
    """Return the run, and the forgetting in it or nothing, that ``RUN`` or ``RUN/forget/NAME`` names.

    Raises
    ------
    BadInput
        If there is no such run.
    """
    run, forgetting = parsed_place(given)
    return RunFolder.open(run, home), forgetting


def go_on(
    folder: RunFolder,
    rounds: int,
    after: str = "",
    overrides: Sequence[str] = (),
    observer: Observer | None = None,
    grid: Grid | None = None,
) -> RunFolder:
    """Train a finished run for more rounds; return the folder of the run that holds both parts.

    Parameters
    ----------
    rounds
        How many more, at least 1.
    after
        The forgetting whose model to go on from; empty: the run's own model.
    overrides
        Of the keys in `ALLOWED`; without a name, the run is called ``<name>-to-<rounds>``, with a number if
        there is one already, beside the other.

    Raises
    ------
    BadInput
        If the run is not finished, its project has changed, or it cannot be gone on with.
    """
    begun = _begun(folder, rounds, after, overrides, observer or Quiet(), over_network=grid is not None)
    return resume(begun, observer, grid)


@on_run
def _begun(
    folder: RunFolder,
    rounds: int,
    after: str,
    overrides: Sequence[str],
    observer: Observer,
    *,
    over_network: bool,
) -> RunFolder:
    """Return the folder of the new run, as if it had been interrupted after the other's last round."""
    _check_finished(folder, rounds)
    origin = Origin.at(folder, after, "continued")
    config = _config(folder, origin.rounds + rounds, overrides)
    session = sessions.open_session(folder)
    check_project(folder, session.config, session.work.project_record)
    _check_continuable(folder, session, after, over_network)
    checkpoint = _checkpoint(folder, origin)
    place, layout = expand(config.run.home), wire.Layout.of(checkpoint.state)
    entries = member_layout(layout, session.isolation).size
    check_rest_fits(config, len(session.nodes), entries, origin.rounds, place, observer, copied=True)
    own = config.run.name
    name = own or f"{folder.name}-to-{config.run.rounds}"
    made = RunFolder.create(config.run.home, name, config.to_toml(), numbered=not own)
    try:
        write_origin(made, origin)
        _copy(folder, made, origin, config)
        made.write_nodes(folder.read_nodes())
        made.write_staying(folder.read_staying())
        made.write_initial(folder.read_initial())
        made.write_checkpoint(checkpoint)  # Last: without it, the folder is known as half written
    except BaseException:
        remove(made)
        raise
    return made


def _copy(folder: RunFolder, made: RunFolder, origin: Origin, config: RunConfig) -> None:
    for name in _COPIED:
        if (folder.path / name).exists():
            shutil.copyfile(folder.path / name, made.path / name)
    for line in folder.read_metrics():  # Those of rounds that were not kept are dropped on resuming
        made.append_metrics(line)
    if config.log.enabled:
        gone = [client_id for request in origin.forgotten for client_id in request.clients]
        copy_log(folder.log_path, made.log_path, gone, config.log.keys_path)


def _check_finished(folder: RunFolder, rounds: int) -> None:
    if rounds < 1:
        raise BadInput(f"--rounds: given {rounds}, allowed an integer >= 1")
    if not (folder.path / MODEL).exists():
        raise BadInput(
            f"run '{folder.name}' is not finished, so there is nothing to go on from: complete it with "
            f"lethe train --resume {folder.name}"
        )
    if outermost(folder) is not folder:
        raise BadInput(
            f"run '{folder.name}' was made within run '{outermost(folder).name}', whose data and clients it "
            "shares; go on from that one"
        )


def _config(folder: RunFolder, rounds: int, overrides: Sequence[str]) -> RunConfig:
    given = parse_overrides(overrides)
    if wrong := [key for key in given if key not in ALLOWED]:
        raise BadInput(
            f"--set {wrong[0]}: a run that goes on keeps its config, so that it can be retrained as a whole; "
            f"allowed here: {', '.join(ALLOWED)}"
        )
    before = RunConfig.from_toml(folder.path / "config.toml")
    flat = before.to_flat()
    home = str(folder.path.absolute().parent)
    placed: dict[str, Scalar] = {
        "run.home": home,
        "run.name": "",
        "run.rounds": rounds,
    }
    if before.train.schedule != "constant":  # The rates of the rounds before stay what they were
        placed["train.schedule-rounds"] = before.train.schedule_rounds or before.run.rounds
    return RunConfig.from_flat({**flat, **placed, **given})


def _check_continuable(folder: RunFolder, session: Session, after: str, over_network: bool) -> None:
    """Refuse what a second training could not continue, each with its reason."""
    config = session.config
    strategy, privacy = config.strategy, config.privacy
    if strategy.traits.single_round:
        raise BadInput(f"run '{folder.name}': {strategy.name} has a single round; there is none to add")
    if privacy.on or strategy.adds_noise:
        raise BadInput(
            f"run '{folder.name}' is private: its noise is solved for its rounds, and its clients' accounts "
            "lie in its folder, beside which another training would spend; train anew with a larger "
            "run.rounds"
        )
    if privacy.hides_updates:
        raise BadInput(
            f"run '{folder.name}' hides its clients' updates: two trainings that go on from the same model "
            "would show the server the difference of their sums; train anew with a larger run.rounds"
        )
    own = session.has_client_models or session.has_personal_models
    if own and after:
        raise BadInput(
            f"run '{folder.name}': with {shown(strategy.name)} each client keeps a model of its own, of "
            "which every forgetting makes another; go on from the run, and forget again in what comes of it"
        )
    if own and over_network:
        raise BadInput(
            f"run '{folder.name}': with {shown(strategy.name)} each client keeps a model of its own at its "
            "node, for that run alone; going on is possible in one process (lethe train --continue)"
        )
    if own and folder.read_checkpoint() is None:
        raise BadInput(f"run '{folder.name}': its checkpoint is gone, and the clients' models with it")


def _checkpoint(folder: RunFolder, origin: Origin) -> Checkpoint:
    """Return the checkpoint that the new run begins with.

    After a forgetting, what strategy and clients remember of the rounds before is left out, as it was made
    with what was forgotten; so it is where the checkpoint was erased by a purge.
    """
    last = folder.read_checkpoint()
    if origin.forgetting:
        kept = {} if last is None else last.client_states
        tags = {node: codec.dump(tags_in(codec.load(state))) for node, state in kept.items()}
        found = _fresh(folder, origin, read_sealed(origin.model_path).tensors)
        return replace(found, client_states={node: state for node, state in tags.items() if state})
    if last is None:
        return _fresh(folder, origin, folder.read_model())
    dropped = (TRAINED, JUDGED) if _is_over(folder) else (TRAINED,)
    return replace(last, extra={key: value for key, value in last.extra.items() if key not in dropped})


def _is_over(folder: RunFolder) -> bool:
    """Whether training ended early, so that its judgement would end the new one at once."""
    judged = folder.read_summary().get("judged")
    return judged is not None and judged["keep"] == "last"


def _fresh(folder: RunFolder, origin: Origin, state: State) -> Checkpoint:
    summary = folder.read_summary()
    traffic = summary.get("traffic") or {}
    extra = {
        "seconds": summary["seconds"],
        "traffic": [int(traffic.get(key) or 0) for key in ("bytes-down", "bytes-up", "visits")],
        "faults": summary.get("faults", []),
        "last": summary["final"],
        "privacy": None,
        "learned": True,
        "evaluations": {},
        "neurons": {},
    }
    return Checkpoint(origin.rounds, state, extra)

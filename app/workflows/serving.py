"""Serves the request in the run config: how the ServerApp forgets and audits over Flower's grid."""

from pathlib import Path

from flwr.serverapp import Grid

from app.config.run_config import RunConfig, default_values
from app.data.record import classes_in
from app.workflows.forgetting import audit, choose_method, forget
from app.workflows.observer import Observer, Quiet
from strategies.core.errors import BadInput
from strategies.core.settings import split_list
from strategies.runs.folder import CONFIG, RunFolder
from unlearning.pruning import sparse_path
from unlearning.request import ForgetRequest, read_samples

_ITS_OWN = ("forget", "audit")
_OF_THE_JOB = ("request", "run")


def serve(config: RunConfig, observer: Observer | None = None, grid: Grid | None = None) -> RunFolder:
    """Forget or audit what the section ``request`` names; return the folder of the run with the forgetting.

    The run keeps its config. Only the sections ``request``, ``forget`` and ``audit`` of this config count,
    and of the last two only keys that differ from the default: Flower passes every key, so one at its default
    was probably not meant. Other keys that differ from the run's are noted as without effect.

    Raises
    ------
    BadInput
        If there is no such run, or the request cannot be served, before any work.
    """
    folder = RunFolder.open(config.request.run, config.run.home)
    request = request_in(config, folder)
    own = config_for_request(folder, config, observer or Quiet())
    after = config.request.after
    forgetting = choose_method(folder, request, own.forget, after)
    sparse = RunFolder(sparse_path(folder, forgetting))
    if config.run.workflow == "forget":
        forget(folder, request, forgetting, observer, grid, after)
    else:
        audit(sparse, request, [forgetting.method], own.audit, observer, grid, after)
    return sparse


def request_in(config: RunConfig, folder: RunFolder) -> ForgetRequest:
    """Return the request in the section ``request``, for a run.

    Raises
    ------
    BadInput
        If none or several kinds are given, or the file cannot be used.
    """
    asked = config.request
    clients, labels = split_list(asked.clients), split_list(asked.classes)
    if [bool(clients), bool(labels), bool(asked.samples)].count(True) != 1:
        raise BadInput("request: give request.clients, request.classes or request.samples, exactly one kind")
    classes, names = classes_in(folder, labels) if labels else ((), ())
    samples = read_samples(Path(asked.samples)) if asked.samples else {}
    return ForgetRequest(clients, classes, samples, names)


def config_for_request(folder: RunFolder, config: RunConfig, observer: Observer) -> RunConfig:
    """Return a run's config with the keys that a job may set; others are noted."""
    own, defaults = RunConfig.from_toml(folder.path / CONFIG).to_flat(), default_values()
    given = {key: value for key, value in config.to_flat().items() if value != defaults.get(key)}
    taken = {key: value for key, value in given.items() if key.partition(".")[0] in _ITS_OWN}
    idle = [
        key
        for key, value in given.items()
        if key.partition(".")[0] not in (*_ITS_OWN, *_OF_THE_JOB) and value != own.get(key)
    ]
    if idle:
        observer.note(f"without effect, the finished run keeps its config: {', '.join(idle)}")
    return RunConfig.from_flat(own | taken)

"""What secure aggregation costs: seconds and bytes of whole rounds, plain and masked, in one call."""

import tempfile
from typing import Any

from app.config.run_config import RunConfig
from app.models.built_in import build_model
from app.workflows.observer import Observer, Quiet
from app.workflows.session import CLIENT_APP
from benchmarks import losing
from benchmarks.jobs import machine
from benchmarks.rounds import beside_plain
from strategies.core import wire
from strategies.core.errors import BadInput

_DIGITS = (1, 8, 8), 10
"""Input shape and number of classes."""


def run(
    observer: Observer | None = None,
    *,
    cohorts: str = "cnn:5,cnn:10,mlp:10,mlp:30,mlp:100,resnet18:5",
    lost: str = "mlp:30",
    rounds: int = 3,
    workers: int = 0,
) -> dict[str, Any]:
    """Measure.

    Parameters
    ----------
    observer
        Told of each measurement.
    cohorts
        Model and number of clients of each measurement on digits, as ``cnn:10,mlp:30``; may be empty.
    lost
        The same, of rounds in which a tenth of the clients, at least one, is lost after it has dealt its
        shares; may be empty.
    rounds
        Of each run; the first does not count, if there are others.
    workers
        Processes that train; 0 are all cores.

    Returns
    -------
    dict
        ``whole`` and ``lost`` by cohort, and the ``machine``.

    Raises
    ------
    BadInput
        If a cohort is none.
    """
    watcher = observer or Quiet()
    parts = {"whole": _parsed("cohorts", cohorts), "lost": _parsed("lost", lost)}
    watcher.phase("secagg", sum(map(len, parts.values())))
    found: dict[str, Any] = {}
    for part, pairs in parts.items():
        found[part] = {}
        for model, clients in pairs:
            keys = [f"model.name={model}", f"data.clients={clients}"]
            keys += [f"run.rounds={rounds}", f"run.workers={workers}"]
            found[part][f"{model}:{clients}"] = _measured(keys, part == "lost")
            watcher.advance(f"{clients} clients, {model}, {part}")
    return {**found, "machine": machine()}


def _parsed(option: str, text: str) -> list[tuple[str, int]]:
    """Return model and number of clients of each cohort; the run config checks the model's name."""
    if not text:
        return []
    pairs = [part.partition(":")[::2] for part in text.split(",")]
    if not all(model and clients.isdecimal() and int(clients) >= 3 for model, clients in pairs):
        allowed = "model:clients with commas, at least 3 clients"
        raise BadInput(f"benchmark secagg: {option}: given '{text}', allowed {allowed}")
    return [(model, int(clients)) for model, clients in pairs]


def _measured(keys: list[str], losing_some: bool) -> dict[str, float]:
    """Return the figures of a round of a cohort, plain and masked."""
    config = RunConfig().with_overrides(keys)
    state = build_model(config.model, *_DIGITS, config.run.seed).state_dict()
    client_app = f"{losing.__name__}:app" if losing_some else CLIENT_APP
    with tempfile.TemporaryDirectory() as home:
        figures = beside_plain(keys, "masked", ["privacy.secure-aggregation=true"], home, client_app)
    return {
        "parameters": wire.Layout.of(state).size,
        "lost": losing.num_lost(config.data.clients) if losing_some else 0,
        **figures,
    }

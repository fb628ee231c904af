"""What secure aggregation costs: seconds and bytes of whole rounds, plain and masked, in one call."""

from typing import Any

from app.config.run_config import RunConfig
from app.models.built_in import build_model
from app.workflows.local_clients import CLIENT_APP
from app.workflows.observer import Observer
from benchmarks import losing
from benchmarks.rounds import RoundsOptions, beside_plain
from strategies.core import wire
from strategies.core.errors import BadInput

_DIGITS = (1, 8, 8), 10
"""Input shape and number of classes."""


class Options(RoundsOptions):
    """Options of the benchmark."""

    cohorts: str = "cnn:5,cnn:10,mlp:10,mlp:30,mlp:100,resnet18:5"
    """Model and number of clients of each measurement on digits, as ``cnn:10,mlp:30``; may be empty."""
    lost: str = "mlp:30"
    """The same, of rounds in which a tenth of the clients, at least one, is lost after it has dealt its
    shares; may be empty."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return the figures of whole cohorts and of those that lose clients, by cohort.

    Raises
    ------
    BadInput
        If a cohort is none.
    """
    parts = {"whole": _parsed("cohorts", options.cohorts), "lost": _parsed("lost", options.lost)}
    observer.phase("secagg", sum(map(len, parts.values())))
    found: dict[str, Any] = {part: {} for part in parts}
    for part, pairs in parts.items():
        for model, clients in pairs:
            measured = _measured(options.keys(model, clients), part == "lost")
            found[part][f"{model}:{clients}"] = measured
            observer.advance(f"{clients} clients, {model}, {part}")
    return found


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
    figures = beside_plain(keys, "masked", ["privacy.secure-aggregation=true"], client_app)
    return {
        "parameters": wire.Layout.of(state).size,
        "lost": losing.num_lost(config.data.clients) if losing_some else 0,
        **figures,
    }

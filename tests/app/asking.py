"""Messages to a client's ClientApp as a server sends them, without a grid."""

import json
from collections.abc import Mapping

from flwr.app import ConfigRecord, Context, Message, RecordDict

from app.client_app import app
from app.config.run_config import RunConfig
from app.models.built_in import build_model
from app.simulation.client import config_of
from app.simulation.grid import take_identity
from strategies.core import wire
from strategies.core.settings import Scalar

SMALL = ("model.name=mlp", "model.hidden=4", "data.clients=2", "data.train-limit=80", "train.local-steps=1")
SHAPE, CLASSES = (1, 8, 8), 10


def run_config(*overrides: str) -> dict[str, Scalar]:
    """Return a small run's config, as Flower passes it to an app."""
    return RunConfig().with_overrides([*SMALL, *overrides]).to_flat()


def context(flat: Mapping[str, Scalar], node_config: Mapping[str, Scalar] | None = None) -> Context:
    """Return the context of the first of two clients."""
    own = {"partition-id": 0, "num-partitions": 2, **(node_config or {})}
    return Context(1, 1, config_of(own), RecordDict(), config_of(flat))


def message(kind: str, brought: Mapping[str, Scalar] | None = None, **told: wire.ConfigValue) -> Message:
    """Return a message that brings the initial model, and perhaps a run's config."""
    take_identity()
    config = RunConfig().with_overrides(SMALL)
    state = build_model(config.model, SHAPE, CLASSES, 0).state_dict()
    record = ConfigRecord({wire.SERVER_ROUND: 1, wire.NUM_GROUPS: CLASSES, wire.INPUT_SHAPE: list(SHAPE)})
    record.update({name.replace("_", "-"): value for name, value in told.items()})
    if brought is not None:
        record[wire.RUN_CONFIG] = json.dumps(brought)
    return Message(RecordDict({wire.ARRAYS: wire.record_of(state), wire.CONFIG: record}), 1, kind)


def handlers() -> tuple[str, ...]:
    """Return the type of every message that the ClientApp has a handler for."""
    return tuple(name.removesuffix(".default") for name in app._registered_funcs)

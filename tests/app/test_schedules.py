"""A schedule of the learning rate from end to end, and the rates that forgetting takes from it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from app.client.node import Node
from app.workflows import forget, train
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.runs.folder import RunFolder
from tests.app.runs import flat_model
from tests.app.test_workflows import CLIENT_2, config
from unlearning.settings import ForgetSettings

FALLING = ("train.schedule=cosine", "train.warm-up=1.5", "train.schedule-final=0.1")


def model_of(folder: RunFolder, name: str) -> bytes:
    return (folder.forget_folder(name) / "model.safetensors").read_bytes()


def test_retraining_follows_the_schedule_to_the_bit(tmp_path: Path) -> None:
    """As the run without the client does."""
    folder = train(config(tmp_path, "run.name=all", *FALLING))
    never = train(config(tmp_path, "run.name=never", "data.without=2", *FALLING))
    name = forget(folder, CLIENT_2, ForgetSettings(method="retrain"))
    assert model_of(folder, name) == (never.path / "model.safetensors").read_bytes()


def test_an_asynchronous_run_counts_steps_of_the_server(tmp_path: Path) -> None:
    """With a buffer of all clients, equal speeds and no discount, it is FedAvg with the same schedule."""
    buffered = ("strategy.name=fedbuff", "strategy.buffer-size=4", "selection.speeds=equal")
    plain = train(config(tmp_path, "run.name=plain", *FALLING))
    found = train(config(tmp_path, "run.name=buffered", *buffered, *FALLING))
    assert flat_model(found).equal(flat_model(plain))
    assert not flat_model(train(config(tmp_path, "run.name=constant", *buffered))).equal(flat_model(plain))


def test_a_client_knows_how_long_the_run_is(tmp_path: Path) -> None:
    """At each third of three rounds the rate drops to next to nothing: the model stays that of one round."""
    dropped = ("train.schedule=step", "train.schedule-factor=1e-9", "run.rounds=3")
    found = flat_model(train(config(tmp_path, "run.name=dropped", *dropped)))
    once = flat_model(train(config(tmp_path, "run.name=once", "run.rounds=1")))
    assert found.allclose(once, rtol=0, atol=1e-6)


def node(entries: Mapping[str, Any]) -> Node:
    """Return a node that was sent these entries, in a run of 15 rounds."""
    record = ConfigRecord({wire.SERVER_ROUND: 1, **entries})
    message = Message(RecordDict({wire.CONFIG: record}), 1, "train")
    return Node.of(message, Context(1, 1, {"partition-id": 0, "num-partitions": 5}, RecordDict(), {}))


def test_how_long_a_schedule_is_comes_with_the_message_or_from_the_run_config() -> None:
    assert node({wire.ROUNDS: 3}).rounds == 3
    assert node({}).rounds == 15
    with pytest.raises(LetheError, match="the schedule lasts 0 rounds"):
        _ = node({wire.ROUNDS: 0}).rounds


def test_what_a_method_leaves_to_the_run_is_the_rate_of_its_last_round(tmp_path: Path) -> None:
    """Half a wave at ¾, down to a tenth: 0.05 (0.1 + 0.9 (1 − √½) / 2); the method names it."""
    folder = train(config(tmp_path, "train.schedule=cosine", "train.schedule-final=0.1"))
    told, asked = ForgetSettings.of("finetune", epochs=1), 0.05 * (0.1 + 0.9 * (1 - 0.5**0.5) / 2)
    name = forget(folder, CLIENT_2, told)
    details = json.loads((folder.forget_folder(name) / "result.json").read_text())["details"]
    assert details["learning_rate"] == pytest.approx(asked)
    same = forget(
        folder, CLIENT_2, ForgetSettings.of("finetune", epochs=1, learning_rate=details["learning_rate"])
    )
    assert model_of(folder, same) == model_of(folder, name)

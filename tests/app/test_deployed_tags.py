"""The tags of a deployed client's data lie in its node's own folder, outlive the node, and stay there."""

import sys
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

from app.client_app import app
from strategies.client.data_tags import RECORD
from strategies.core import wire
from tests.app.asking import context, message, run_config

RUN = "ab12"


def write(path: Path, rows: int, order: int = 1) -> None:
    """Write examples in the shape of digits."""
    generator = np.random.default_rng(1)
    x, y = generator.random((rows, 1, 8, 8)).astype(np.float32), np.arange(rows) % 10
    np.savez(path, x_train=x[::order], y_train=y[::order])


def said(folder: Path, kind: str, **told: int | str) -> RecordDict:
    """Return the answer of a node that was just started, so that it knows what lies on its disk alone."""
    for module in [
        module for name, module in sys.modules.items() if name.startswith(("app.data", "app.client.node"))
    ]:
        for cached in [each for each in vars(module).values() if hasattr(each, "cache_clear")]:
            cached.cache_clear()
    node = {"data.path": str(folder / "data.npz"), "state": str(folder), "client-id": "a"}
    return app(message(kind, None, run_id=RUN, **told), context(run_config(), node)).content


def data_state(folder: Path) -> str:
    told = said(folder, wire.HOLDINGS).config_records[wire.CONFIG]
    assert set(told) <= {wire.CLIENT_ID, wire.DATA_STATE, wire.FORGETS, wire.KEEPS}
    return str(told[wire.DATA_STATE])


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Return the folder of a node that has trained in a run, on 300 examples."""
    write(tmp_path / "data.npz", 300)
    reply = said(tmp_path, wire.TRAIN, keep_tags=1)
    assert RECORD not in reply
    return tmp_path


def test_the_data_of_the_run_are_known_again(trained: Path) -> None:
    assert data_state(trained) == "same"


def test_another_order_is_noticed(trained: Path) -> None:
    write(trained / "data.npz", 300, order=-1)
    assert data_state(trained) == "changed"


def test_what_was_appended_changes_nothing_and_what_is_missing_does(trained: Path) -> None:
    for rows, expected in ((700, "same"), (299, "changed"), (256, "changed"), (300, "same")):
        write(trained / "data.npz", rows)
        assert data_state(trained) == expected


def test_a_node_that_lost_its_state_cannot_check(trained: Path) -> None:
    for path in trained.glob("a-*"):
        path.unlink()
    assert data_state(trained) == "unknown"


def test_a_retraining_makes_no_tags_and_a_training_on_other_data_is_remembered(trained: Path) -> None:
    """Without the word of the training, nothing is kept; data that changed while it went on stay changed."""
    write(trained / "data.npz", 300, order=-1)
    said(trained, wire.TRAIN, keep_tags=1)
    write(trained / "data.npz", 300)
    assert data_state(trained) == "changed"
    for path in trained.glob("a-*"):
        path.unlink()
    said(trained, wire.TRAIN)
    assert data_state(trained) == "unknown"

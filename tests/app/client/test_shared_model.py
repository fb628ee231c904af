"""The model that a node works with: where its weights come from, and whether it is the server's."""

from pathlib import Path

import pytest
import torch
from torch import nn

from app.client.node import Node
from app.client.policy import Policy
from app.config.run_config import RunConfig
from app.models import built_in
from strategies.client.settings import TrainSettings
from strategies.client.training import make_optimizer, put_gradients
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar
from strategies.models import travelling
from strategies.runs.tensor_file import write_sealed
from tests.app import own_networks
from tests.app.asking import CLASSES, SHAPE, run_config
from tests.app.own_networks import FROZEN


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    own_networks.use(monkeypatch)


def weights(path: Path, value: float) -> nn.Module:
    model = own_networks.frozen(64, CLASSES)
    with torch.no_grad():
        model.get_parameter("1.0.bias").fill_(value)
    write_sealed(path, dict(model.state_dict()))
    return model


def node(given: Path | str, staying: str = "", **own: Scalar) -> Node:
    flat = run_config(f"model.hidden={FROZEN}", f"model.weights={given}", "run.seed=0")
    config = {"partition-id": 0, "num-partitions": 2, **{key.replace("_", "."): v for key, v in own.items()}}
    message = {wire.NUM_GROUPS: CLASSES, wire.INPUT_SHAPE: list(SHAPE), wire.STAYING: staying}
    return Node(RunConfig.from_flat(flat), config, message, Policy.of(config))


def bias(of: Node) -> float:
    return float(of.model().get_parameter("1.0.bias").detach()[0])


def test_the_nodes_own_file_stands_above_the_servers_path(tmp_path: Path) -> None:
    weights(tmp_path / "server.safetensors", 2.0)
    weights(tmp_path / "own.safetensors", 3.0)
    assert bias(node(tmp_path / "server.safetensors")) == 2.0
    own = str(tmp_path / "own.safetensors")
    assert bias(node(tmp_path / "server.safetensors", **{"model.weights": own})) == 3.0


def test_without_the_file_a_node_begins_with_the_seed(tmp_path: Path) -> None:
    assert bias(node(tmp_path / "gone.safetensors")) == bias(node(""))


def test_a_node_with_a_policy_reads_no_path_of_the_servers(tmp_path: Path) -> None:
    weights(tmp_path / "server.safetensors", 2.0)
    protected = node(tmp_path / "server.safetensors", **{"privacy.unit": "example"})
    assert bias(protected) == bias(node(""))


def test_what_stays_must_be_the_servers(tmp_path: Path) -> None:
    model = weights(tmp_path / "w.safetensors", 2.0)
    said = travelling.fingerprint(travelling.staying(model))
    node(tmp_path / "w.safetensors", said).check_model()
    with pytest.raises(
        BadInput, match=r"the parts of 'mlp' that do not travel .* server: '1\.0\.weight' differs"
    ):
        node("", said).check_model()


def test_a_model_is_built_once_for_all_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    first = node("").shared
    monkeypatch.setitem(built_in._BUILDERS, "mlp", None)
    assert node("").shared is first


def test_a_model_that_was_trained_is_loaded_again() -> None:
    """Fused optimisers change parameters without counting it, and messages in one process share a vector."""
    own = node("")
    record = own.record_of(own.model())
    sent = wire.flat_of(record, own.shared.layout).clone()
    for _ in range(2):
        model = own.model(record)
        assert own.shared.layout.flatten(model.state_dict()).equal(sent)
        trained = [p for p in model.parameters() if p.requires_grad]
        put_gradients(trained, [torch.ones_like(p) for p in trained])
        make_optimizer(trained, TrainSettings()).step()
        assert not own.shared.layout.flatten(model.state_dict()).equal(sent)
    read = own.model(record, to_read=True)
    assert own.shared.layout.flatten(read.state_dict()).equal(sent)

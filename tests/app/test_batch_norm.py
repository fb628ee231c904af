"""Runs of a model with BatchNorm under each policy: by hand, in every surrounding, and forgotten from."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from torch import Tensor, nn

from app.client.node import Node
from app.client_app import app
from app.config.run_config import RunConfig
from app.messages import codec
from app.models import built_in
from app.simulation.client import config_of
from app.simulation.grid import take_identity
from app.simulation.kept_models import CLIENTS
from app.workflows import audit, forget, resume, train
from app.workflows.session import open_session
from app.workflows.trained import open_trained_run
from strategies.client.evaluation import evaluate
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.log.update_log import UpdateLog
from strategies.models.batch_norm import recalibrated
from strategies.runs.folder import MODEL, RunFolder
from strategies.runs.tensor_file import read_sealed
from tests.app import own_networks
from tests.app.conftest import CLIENT_2
from tests.app.own_networks import NORMED, SECURE
from tests.app.runs import StopAfter, Stopped, flat_model, flat_of
from unlearning.audit.audit import AuditSettings
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

SMALL = ("run.rounds=3", "data.train-limit=180", "data.local-test-share=0.2")
MEASURED = ("run.federated-evaluation=true",)
LINEAR = ["1.weight", "1.bias", "4.weight", "4.bias"]
AFFINE = ["2.weight", "2.bias"]
STATISTICS = ["2.running_mean", "2.running_var"]
pytestmark = pytest.mark.usefixtures("_own_networks")


def config(home: Path, name: str, policy: str, *overrides: str) -> RunConfig:
    return own_networks.config(home, name, NORMED, *SMALL, f"model.batch-norm={policy}", *overrides)


@pytest.fixture(scope="module")
def local(home: Path) -> RunFolder:
    """Nothing asks for an evaluation by clients: it follows from the policy."""
    return train(config(home, "local", "local"))


@pytest.fixture(scope="module")
def recalibrated_run(home: Path) -> RunFolder:
    return train(config(home, "recalibrate", "recalibrate", *MEASURED))


# FedBN by hand


class OneNorm(nn.Module):
    """Logits (w · BN(x), 0) for one number x."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.w = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return two logits."""
        z = self.norm(x.flatten(1))
        return torch.cat([self.w * z, torch.zeros_like(z)], dim=1)


def ask(name: int, state: RecordDict, path: Path, server_round: int, w: float) -> Message:
    """Have a client with the file at `path` train for a step on all of its examples, from a given w."""
    take_identity()
    told = {wire.SERVER_ROUND: server_round, wire.NUM_GROUPS: 2, wire.INPUT_SHAPE: [1]}
    arrays = wire.record_of({"w": torch.tensor([w])})
    message = Message(RecordDict({wire.ARRAYS: arrays, wire.CONFIG: ConfigRecord(told)}), 1, "train")
    keys = ["model.name=mlp", "model.batch-norm=local", "data.public=0", "train.local-steps=1"]
    keys += ["train.learning-rate=1", "train.momentum=0"]
    flat = RunConfig().with_overrides(keys).to_flat()
    own = config_of({"client-id": f"c{name}", "data.path": str(path)})
    return app(message, Context(1, 1, own, state, config_of(flat)))


def test_two_clients_and_one_layer_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Client 0 has x = 0, 2; client 1 has x = 10, 16; the first of each is of class 0, the second of class 1.

    BN(x) = (−1, 1) for both (up to ε). With γ = w = 1, β = 0 the logits are (z, 0), p₀ = σ(z): the losses'
    derivatives by z are σ(−1) − 1 = −s and σ(1) − 0 = s, with s = σ(1) = 0.7311. The mean gradient of w is
    ½(−s·(−1) + s·1) = s, that of γ is the same, that of β is ½(−s + s) = 0. After a step of size 1,
    w = γ = 1 − s = 0.2689, β = 0, the mean is 0.1·1 = 0.1 and 0.1·13 = 1.3, the variance
    0.9 + 0.1·2 = 1.1 and 0.9 + 0.1·18 = 2.7.

    In the second round the server sends w = 1: each client goes on from its own γ, so the logits are
    (γz, 0) and the derivatives −t and t with t = σ(γ); w's gradient is γt, and γ's is t.
    """
    monkeypatch.setitem(built_in._BUILDERS, "mlp", lambda *_: OneNorm())
    s = 1 / (1 + np.exp(-1))
    gamma = 1 - s
    t = 1 / (1 + np.exp(-gamma))
    for name, values, mean, variance in ((0, [0, 2], 0.1, 1.1), (1, [10, 16], 1.3, 2.7)):
        path, state = tmp_path / f"{name}.npz", RecordDict()
        np.savez(path, x=np.array(values, dtype=np.float32)[:, None], y=np.array([0, 1]))
        reply = ask(name, state, path, 1, 1.0)
        assert list(reply.content.array_records["arrays"]) == ["w"]
        assert wire.state_of(reply.content.array_records["arrays"])["w"].item() == pytest.approx(
            gamma, abs=1e-4
        )
        kept = wire.state_of(state.array_records["local-layers/"])
        expected = {"weight": gamma, "bias": 0.0, "running_mean": mean, "running_var": variance}
        assert {k.removeprefix("norm."): v.item() for k, v in kept.items()} == pytest.approx(
            expected, abs=1e-4
        )
        second = ask(name, state, path, 2, 1.0)
        assert wire.state_of(second.content.array_records["arrays"])["w"].item() == pytest.approx(
            1 - gamma * t, abs=1e-4
        )
        kept = wire.state_of(state.array_records["local-layers/"])
        assert kept["norm.weight"].item() == pytest.approx(gamma - t, abs=1e-4)


# local


def kept_layers(folder: RunFolder) -> dict[int, dict[str, Tensor]]:
    """Return what each client keeps after a run."""
    checkpoint = folder.read_checkpoint()
    assert checkpoint is not None
    states = {int(node): codec.load(state) for node, state in checkpoint.client_states.items()}
    return {n: wire.state_of(s.array_records["local-layers/"]) for n, s in states.items()}


def test_local_layers_neither_travel_nor_are_logged_and_clients_measure(local: RunFolder) -> None:
    assert list(local.read_model()) == LINEAR
    assert UpdateLog.open(local.log_path).layout.names == tuple(LINEAR)
    final = local.read_summary()["final"]
    assert "test-accuracy" not in final
    assert final["client-accuracy"] > 15
    kept = list(kept_layers(local).values())
    assert [list(each) for each in kept] == [[*AFFINE, *STATISTICS]] * 3
    assert not torch.equal(kept[0]["2.running_mean"], kept[1]["2.running_mean"])


def test_a_client_is_measured_with_its_own_layers(local: RunFolder) -> None:
    """The mean accuracy of the last round, made again from the run's folder alone."""
    session, nodes, kept = open_session(local), local.read_nodes(), kept_layers(local)
    assert session.evaluator() is None
    right, count = 0.0, 0
    for client_id, node_id in nodes.items():
        own = {"partition-id": int(client_id), "num-partitions": 3}
        examples = Node(session.config, own, {}).test_examples()
        model = session.model()
        model.load_state_dict({**local.read_model(), **kept[node_id]}, strict=False)
        right += evaluate(model, examples).accuracy * len(examples)
        count += len(examples)
    assert local.read_summary()["final"]["client-accuracy"] == pytest.approx(right / count)


@pytest.mark.check
@pytest.mark.parametrize("policy", ["local", "recalibrate"])
def test_workers_and_an_interruption_make_no_difference(
    policy: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    whole = request.getfixturevalue("local" if policy == "local" else "recalibrated_run")
    apart = train(config(tmp_path, "apart", policy, *MEASURED, "run.workers=3"))
    with pytest.raises(Stopped):
        train(config(tmp_path, "cut", policy, *MEASURED), StopAfter(2))
    cut = resume(RunFolder.open("cut", tmp_path))
    for other in (apart, cut):
        assert flat_model(other).equal(flat_model(whole))
        assert other.read_summary()["final"] == whole.read_summary()["final"]


def test_retraining_makes_the_layers_anew_and_leaves_the_runs(local: RunFolder, home: Path) -> None:
    """As a run of the others alone, to the bit; the run's own layers stay as they were."""
    before = kept_layers(local)
    path = local.forget_folder(forget(local, CLIENT_2, ForgetSettings(method="retrain")))
    others = train(config(home, "others", "local", *MEASURED, "data.without=2"))
    assert flat_of(read_sealed(path / MODEL).tensors).equal(flat_model(others))
    made = {int(n): codec.load(t.numpy().tobytes()) for n, t in read_sealed(path / CLIENTS).tensors.items()}
    fresh = {n: wire.state_of(s.array_records[f"local-layers/{path.name}"]) for n, s in made.items()}
    assert fresh.keys() == kept_layers(others).keys()
    for node, layers in kept_layers(others).items():
        assert all(torch.equal(tensor, fresh[node][name]) for name, tensor in layers.items())
    assert all(
        torch.equal(t, before[n][k]) for n, each in kept_layers(local).items() for k, t in each.items()
    )


@pytest.mark.parametrize("method", ["finetune", "subtract", "federaser", "distill", "fisher"])
def test_methods_on_the_servers_model_are_refused_with_local_layers(method: str, local: RunFolder) -> None:
    with pytest.raises(
        BadInput, match=rf'{method} works on a model that the server has whole, .*"local".*retrain'
    ):
        forget(local, CLIENT_2, ForgetSettings(method=method))


def test_the_servers_model_does_not_run_with_local_layers(local: RunFolder) -> None:
    run = open_trained_run(local, open_session(local))
    with pytest.raises(
        BadInput, match=r'"local" leaves layers with each client, so the server has no model to run'
    ):
        run.model(run.final)


def test_audits_and_pruning_are_refused_with_local_layers(local: RunFolder) -> None:
    with pytest.raises(BadInput, match=r'audit: with model\.batch-norm = "local"'):
        audit(local, CLIENT_2, ["retrain"], AuditSettings())
    with pytest.raises(BadInput, match=r"forget\.prune needs a whole model on the server"):
        forget(local, CLIENT_2, ForgetSettings(method="retrain", prune="synflow"))


# recalibrate


def of_public(folder: RunFolder, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the statistics that a model has on the server's public data."""
    session = open_session(folder)
    model, public = session.model(), session.server_data.public
    assert public is not None
    model.load_state_dict(state, strict=False)
    recalibrated(model, public)
    return {name: model.state_dict()[name] for name in STATISTICS}


def test_statistics_are_the_servers_and_no_update_changes_them(recalibrated_run: RunFolder) -> None:
    state = recalibrated_run.read_model()
    assert list(state) == ["1.weight", "1.bias", *AFFINE, *STATISTICS, "4.weight", "4.bias"]
    expected = of_public(recalibrated_run, state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in expected.items())
    log = UpdateLog.open(recalibrated_run.log_path)
    for entry in log.entries():
        update = log.layout.unflatten(log.delta(entry.round, entry.client_id))
        assert not any(update[name].any() for name in STATISTICS)
        assert all(update[name].any() for name in AFFINE)
    final = recalibrated_run.read_summary()["final"]
    assert final["test-accuracy"] > 15
    assert final["client-accuracy"] > 15


@pytest.mark.check
@pytest.mark.parametrize("method", ["retrain", "finetune", "subtract", "federaser", "distill", "negate"])
def test_after_forgetting_statistics_are_measured_anew(method: str, recalibrated_run: RunFolder) -> None:
    """On the server's own data, with the weights after: nothing of the forgotten client is in them."""
    path = recalibrated_run.forget_folder(forget(recalibrated_run, CLIENT_2, ForgetSettings(method=method)))
    state = read_sealed(path / MODEL).tensors
    expected = of_public(recalibrated_run, state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in expected.items())
    assert not torch.equal(state["2.running_mean"], recalibrated_run.read_model()["2.running_mean"])


def test_gradients_are_of_what_trains_and_not_of_statistics(recalibrated_run: RunFolder) -> None:
    """8 means and 8 variances are no entries of a gradient."""
    run = open_trained_run(recalibrated_run, open_session(recalibrated_run))
    assert run.num_trained == run.layout.size - 16
    spread = run.layout.unflatten(run.spread(torch.ones(run.num_trained)))
    assert {name for name, tensor in spread.items() if tensor.all()} == {*LINEAR, *AFFINE}
    assert not any(spread[name].any() for name in STATISTICS)


@pytest.mark.check
@pytest.mark.parametrize("method", ["ascent", "influence", "fisher", "salun", "ssd", "fedosd"])
def test_methods_by_sums_of_gradients_serve_a_recalibrated_model(
    method: str, recalibrated_run: RunFolder
) -> None:
    """Clients sum over the weights that train, which are fewer than what travels."""
    request = ForgetRequest(samples={"1": (0, 5)})
    path = recalibrated_run.forget_folder(forget(recalibrated_run, request, ForgetSettings(method=method)))
    result, state = json.loads((path / "result.json").read_text()), read_sealed(path / MODEL).tensors
    assert not result["warnings"]
    assert not any("failed" in note for note in result["notes"])
    assert all(
        torch.equal(tensor, state[name]) for name, tensor in of_public(recalibrated_run, state).items()
    )


def test_a_recalibrated_model_is_audited(recalibrated_run: RunFolder) -> None:
    forget(recalibrated_run, CLIENT_2, ForgetSettings(method="subtract"))
    assert audit(recalibrated_run, CLIENT_2, ["subtract"], AuditSettings()).to_json()


# group, and the surroundings


@pytest.mark.check
@pytest.mark.parametrize("method", ["retrain", "finetune", "subtract", "federaser"])
def test_after_replacement_every_method_serves(method: str, home: Path) -> None:
    folder = home / "group"
    run = RunFolder.open(folder) if folder.exists() else train(config(home, "group", "group"))
    assert list(run.read_model()) == ["1.weight", "1.bias", *AFFINE, "4.weight", "4.bias"]
    path = run.forget_folder(forget(run, CLIENT_2, ForgetSettings(method=method)))
    assert not flat_of(read_sealed(path / MODEL).tensors).equal(flat_model(run))


def test_by_default_it_is_refused_before_any_work(home: Path) -> None:
    with pytest.raises(BadInput, match=r"layer '2' is BatchNorm1d, .*model\.batch-norm"):
        train(config(home, "refused", "refuse"))
    assert not (home / "refused").exists()


@pytest.mark.check
@pytest.mark.parametrize("policy", ["local", "recalibrate"])
@pytest.mark.parametrize(
    "overrides",
    [
        SECURE,
        ("compression.codec=top-k+int8",),
        ("strategy.name=fedbuff", "strategy.buffer-size=2"),
        ("privacy.unit=client-local", "privacy.noise-multiplier=1"),
    ],
)
def test_a_policy_holds_in_every_surrounding(
    policy: str, overrides: tuple[str, ...], home: Path, request: pytest.FixtureRequest
) -> None:
    name = f"around-{abs(hash(request.node.name))}"
    run = train(config(home, name, policy, "run.rounds=1", *overrides))
    assert not run.read_summary()["faults"]
    if policy == "local":
        assert list(run.read_model()) == LINEAR
        assert len(kept_layers(run)) >= 2  # As many as one step of fedbuff waits for
    else:
        state = run.read_model()
        assert all(torch.equal(t, state[name]) for name, t in of_public(run, state).items())

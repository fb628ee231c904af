"""The main job from end to end, small: train, resume, forget, audit."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch

from app.config.run_config import RunConfig
from app.workflows import audit, forget, list_runs, resume, train
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.log.update_log import UpdateLog
from strategies.runs.folder import RunFolder
from tests.app.runs import StopAfter, Stopped, flat_model, in_a_process
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

SMALL = (
    "run.rounds=4",
    "data.clients=4",
    "data.train-limit=400",
    "data.test-limit=120",
    "model.name=mlp",
    "model.hidden=16",
    "train.local-epochs=1",
)
CLIENT_2 = ForgetRequest(clients=("2",))


def config(home: Path, *overrides: str) -> RunConfig:
    """Return a small run's config."""
    return RunConfig().with_overrides([f"run.home={home}", *SMALL, *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return a finished run with a poisoned client."""
    home = tmp_path_factory.mktemp("runs")
    attacked = ("attack.kind=backdoor", "attack.clients=2", "run.workers=2", "data.public=0.2")
    return train(config(home, "run.name=finished", *attacked))


def test_the_run_folder_holds_what_a_run_leaves(finished: RunFolder) -> None:
    """Config, models, metrics of every round, summary; the config is complete and parses."""
    present = {path.name for path in finished.path.iterdir()}
    assert {
        "config.toml",
        "initial.safetensors",
        "model.safetensors",
        "metrics.jsonl",
        "summary.json",
        "log",
    } <= present
    assert RunConfig.from_toml(finished.path / "config.toml").data.clients == 4
    rounds = finished.read_metrics()
    assert [line["round"] for line in rounds] == [1, 2, 3, 4]
    assert all(line["accepted"] == ["0", "1", "2", "3"] and line["faults"] == [] for line in rounds)
    assert {"test-accuracy", "test-loss", "train-loss", "attack-success-rate", "seconds"} <= set(rounds[-1])


def test_the_summary_counts_the_traffic(finished: RunFolder) -> None:
    """Each round sends the model to four clients and gets four back: P float32s, and a little more."""
    summary = finished.read_summary()
    parameters = summary["model"]["parameters"]
    models = 4 * 4 * parameters * 4
    assert models <= summary["traffic"]["bytes-up"] < 1.05 * models
    assert models <= summary["traffic"]["bytes-down"] < 1.05 * models
    assert (
        sum(c["num-examples"] for c in summary["clients"].values()) + summary["data"]["public-examples"]
        == 400
    )


def test_the_log_holds_what_was_aggregated(finished: RunFolder) -> None:
    """M_F = M_1 + Σ_t Σ_i w_{t,i} ΔM_t^i, recomputed from the log in float64."""
    log = UpdateLog.open(finished.log_path)
    total = log.layout.flatten(finished.read_initial()).double()
    for entry in log.entries():
        total += entry.weight * log.delta(entry.round, entry.client_id).double()
    assert total.float().allclose(flat_model(finished), atol=1e-6)
    assert log.verify() == {}


def test_one_worker_or_two_give_the_same_bits(finished: RunFolder, tmp_path: Path) -> None:
    """Which process serves a client makes no difference."""
    attacked = ("attack.kind=backdoor", "attack.clients=2", "run.workers=1", "data.public=0.2")
    assert flat_model(train(config(tmp_path, *attacked))).equal(flat_model(finished))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_and_forgets_as_a_cpu_does(finished: RunFolder, tmp_path: Path) -> None:
    """Up to the order of floating-point sums; what it leaves is read on any machine."""
    attacked = ("attack.kind=backdoor", "attack.clients=2", "data.public=0.2", "run.device=cuda")
    folder = train(config(tmp_path, *attacked))
    assert flat_model(folder).allclose(flat_model(finished), atol=1e-3)
    for method in ("distill", "ascent", "retrain"):
        name = forget(folder, CLIENT_2, ForgetSettings(method=method))
        assert (folder.forget_folder(name) / "model.safetensors").exists()


def test_another_seed_gives_another_model(finished: RunFolder, tmp_path: Path) -> None:
    """The seed is used."""
    attacked = ("attack.kind=backdoor", "attack.clients=2", "data.public=0.2", "run.seed=1")
    assert not flat_model(train(config(tmp_path, *attacked))).equal(flat_model(finished))


STRATEGIES = {
    "fedavg": (),
    "fedprox": ("strategy.name=fedprox", "strategy.work=1=0.5"),
    "fedadam": ("strategy.name=flwr:FedAdam", "strategy.options=eta=0.01"),
    "scaffold": ("strategy.name=scaffold", "train.momentum=0", "compression.codec=int8"),
    "fedyogi": ("strategy.name=fedyogi", "train.schedule=cosine", "train.warm-up=1.5"),
    "sum": ("log.retention=sum", "selection.fraction=0.5"),
}


@pytest.mark.parametrize("variant", STRATEGIES)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, variant: str) -> None:
    """Bit for bit, with the same log and the same metrics but for the clock."""
    whole = train(config(tmp_path / "a", *STRATEGIES[variant]))
    with pytest.raises(Stopped):
        train(config(tmp_path / "b", "run.name=cut", *STRATEGIES[variant]), StopAfter(2))
    cut = resume(RunFolder.open("cut", tmp_path / "b"))
    assert flat_model(cut).equal(flat_model(whole))
    logs = UpdateLog.open(whole.log_path), UpdateLog.open(cut.log_path)
    assert logs[0].entries() == logs[1].entries()
    for client_id in logs[0].clients():
        assert logs[0].weighted_sum(client_id).equal(logs[1].weighted_sum(client_id))
    for left, right in zip(whole.read_metrics(), cut.read_metrics(), strict=True):
        assert left | {"seconds": 0} == right | {"seconds": 0}


def test_scaffold_is_forgotten_as_an_average_and_retrained_without_a_trace(tmp_path: Path) -> None:
    """Subtraction sums the log; retraining begins with control variates of zero: it is the run without."""
    keys = ("strategy.name=scaffold", "train.momentum=0", "data.public=0.2")
    folder = train(config(tmp_path, "run.name=all", *keys))
    never = train(config(tmp_path, "run.name=never", "data.without=2", *keys))
    name = forget(folder, CLIENT_2, ForgetSettings(method="retrain"))
    path = folder.forget_folder(name) / "model.safetensors"
    assert path.read_bytes() == (never.path / "model.safetensors").read_bytes()
    log = UpdateLog.open(folder.log_path)
    initial = wire.Layout.of(folder.read_initial()).flatten(folder.read_initial())
    total = sum((log.weighted_sum(i).double() for i in log.clients()), start=initial.double())
    torch.testing.assert_close(total.float(), flat_model(folder), rtol=0, atol=1e-5)
    for method in ("subtract", "finetune", "federaser"):
        assert (folder.forget_folder(forget(folder, CLIENT_2, ForgetSettings(method=method)))).exists()


def test_a_killed_process_can_be_resumed(tmp_path: Path) -> None:
    """SIGKILL in mid-run: no complete round is lost and the model is the uninterrupted one's."""
    process = in_a_process(lambda: train(config(tmp_path, "run.name=killed", "run.rounds=12")))
    metrics = tmp_path / "killed" / "metrics.jsonl"
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline and process.is_alive():
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= 3:
            break
        time.sleep(0.01)
    process.kill()
    process.join()
    folder = RunFolder.open("killed", tmp_path)
    assert not (folder.path / "model.safetensors").exists(), "the run was over before it could be killed"
    resumed = resume(folder)
    whole = train(config(tmp_path, "run.name=whole", "run.rounds=12"))
    assert flat_model(resumed).equal(flat_model(whole))


@pytest.mark.parametrize("made", ["nothing", "initial model", "empty log"])
def test_a_run_killed_before_its_first_round_can_be_resumed(tmp_path: Path, made: str) -> None:
    """Whatever of its folder was there: the model is the uninterrupted one's."""
    whole = train(config(tmp_path / "a"))
    with pytest.raises(Stopped):
        train(config(tmp_path / "b", "run.name=cut"), StopAfter(1))
    cut = RunFolder.open("cut", tmp_path / "b")
    for name in ("checkpoint.safetensors", "metrics.jsonl"):
        (cut.path / name).unlink()
    if made != "empty log":
        shutil.rmtree(cut.log_path)
    if made == "nothing":
        (cut.path / "initial.safetensors").unlink()
    assert flat_model(resume(cut)).equal(flat_model(whole))
    assert UpdateLog.open(cut.log_path).entries() == UpdateLog.open(whole.log_path).entries()


def test_a_finished_run_is_not_resumed(finished: RunFolder) -> None:
    """There is nothing to do."""
    with pytest.raises(BadInput, match="is finished"):
        resume(finished)


def test_forgetting_leaves_the_run_as_it_was(finished: RunFolder) -> None:
    """The result lies in a folder of its own."""
    before = flat_model(finished)
    name = forget(finished, CLIENT_2, ForgetSettings(method="subtract"))
    assert name == "client-2-subtract"
    assert flat_model(finished).equal(before)
    result = json.loads((finished.path / "forget" / name / "result.json").read_text())
    assert result["request"]["clients"] == ["2"]
    assert result["traffic"]["visits"] == 0


def test_retraining_equals_a_run_that_never_had_the_client(finished: RunFolder, tmp_path: Path) -> None:
    """The others draw the same batches whoever takes part, so only the absence of client 2 differs.

    Compared with the average of the others' updates in round 1, which did not depend on client 2.
    """
    name = forget(finished, CLIENT_2, ForgetSettings(method="retrain"))
    log = UpdateLog.open(finished.log_path)
    others = [e for e in log.entries(1) if e.client_id != "2"]
    total = sum(e.num_examples for e in others)
    mean = sum(e.num_examples / total * log.delta(1, e.client_id).double() for e in others)
    one_round = train(
        config(tmp_path, "run.rounds=1", "attack.kind=backdoor", "attack.clients=2", "data.public=0.2")
    )
    forget(one_round, CLIENT_2, ForgetSettings(method="retrain"))
    from strategies.runs.tensor_file import read_sealed

    state = read_sealed(one_round.path / "forget" / name / "model.safetensors").tensors
    expected = log.layout.flatten(finished.read_initial()).double() + mean
    assert log.layout.flatten(state).allclose(expected.float(), atol=1e-6)


def test_class_and_sample_requests_are_retrained_without_those_examples(finished: RunFolder) -> None:
    """The clients leave them out; the audit measures them."""
    for request in (ForgetRequest(classes=(7,)), ForgetRequest(samples={"1": (0, 1, 2, 3, 4)})):
        report = audit(finished, request, [], AuditSettings())
        document = report.to_json()["models"]["retrain"]
        assert document["num_forget"] == (5 if request.samples else document["num_forget"]) > 0
        if request.classes:
            assert document["unlearning_accuracy"] > 90


def test_audit_reports_every_figure_with_its_gap(finished: RunFolder) -> None:
    """The file beside the method's model holds before, after and retrained."""
    forget(finished, CLIENT_2, ForgetSettings(method="distill"))
    audit(finished, CLIENT_2, ["distill"], AuditSettings())
    document = json.loads((finished.path / "forget" / "client-2-distill" / "audit.json").read_text())
    figures = (
        "test_accuracy",
        "retain_accuracy",
        "unlearning_accuracy",
        "mia_efficacy",
        "attack_success_rate",
        "seconds",
    )
    for column in ("before", "after", "retrain"):
        assert all(isinstance(document[column][figure], float) for figure in figures)
    gaps = [abs(document["after"][f] - document["retrain"][f]) for f in figures[:4]]
    assert document["disparity"] == pytest.approx(sum(gaps) / 4)


def test_audit_of_a_method_that_was_not_run(finished: RunFolder) -> None:
    """It says what to do first, and retrains for nothing."""
    with pytest.raises(BadInput, match="client-0 was not forgotten by distill; do that first"):
        audit(finished, ForgetRequest(clients=("0",)), ["distill"], AuditSettings())
    assert not (finished.path / "forget" / "client-0-retrain").exists()


def test_audit_of_a_retraining_alone(finished: RunFolder) -> None:
    """It says how far the model before was from it; its own gaps are zero."""
    forget(finished, CLIENT_2, ForgetSettings(method="retrain"))
    report = audit(finished, CLIENT_2, ["retrain"], AuditSettings())
    assert report.to_json()["comparisons"]["before"]["disparity"] > 0
    document = json.loads((finished.path / "forget" / "client-2-retrain" / "audit.json").read_text())
    assert document["after"] == document["retrain"] != document["before"]
    assert document["disparity"] == 0


def test_runs_are_listed(finished: RunFolder) -> None:
    """With their state and accuracy."""
    row = next(r for r in list_runs(finished.path.parent) if r["name"] == "finished")
    assert row["state"] == "finished"
    assert row["test-accuracy"] == finished.read_summary()["final"]["test-accuracy"]


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("attack.clients", ("attack.kind=backdoor", "attack.clients=9")),
        ("strategy.work", ("strategy.name=fedprox", "strategy.work=9=0.5")),
    ],
)
def test_a_client_that_the_config_names_must_be_there(
    tmp_path: Path, key: str, settings: tuple[str, ...]
) -> None:
    """Otherwise nothing would come of the setting; no folder is left behind."""
    with pytest.raises(BadInput, match=rf"{key}: no client '9'; known clients: 0, 1, 2, 3"):
        train(config(tmp_path, *settings))
    assert list_runs(tmp_path) == []


def test_more_clients_asked_for_than_there_are(tmp_path: Path) -> None:
    """The selection cannot be served."""
    with pytest.raises(BadInput, match=r"selection\.min-clients"):
        train(config(tmp_path, "selection.min-clients=5"))


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/b"])
def test_a_run_cannot_leave_its_home(tmp_path: Path, name: str) -> None:
    """Names are plain folder names."""
    with pytest.raises(BadInput):
        train(config(tmp_path / "home", f"run.name={name}"))

"""app/workflows/continuing.py: a run goes on in a folder that holds both parts; the first is not altered."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from app.config.run_config import RunConfig
from app.data.record import check_project
from app.forgettings.verify_run import verify_run
from app.workflows import find_place, forget, go_on, remove, resume, session as sessions, train, tree_of_runs
from app.workflows.continuing import _check_continuable
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.log.update_log import UpdateLog
from strategies.runs.folder import RunFolder
from tests.app.conftest import CLIENT_2, SMALL, SUBTRACT
from tests.app.runs import StopAfter, Stopped, flat_model
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

FORGOTTEN = "client-2-subtract"


def trained(home: Path, *overrides: str) -> RunFolder:
    key = f"run.certificate-key={home / 'keys' / 'certificate.pem'}"
    return train(RunConfig().with_overrides([*SMALL, f"run.home={home}", key, *overrides]))


def content_of(folder: RunFolder) -> dict[str, str]:
    """Return the hash of each file of a run but its lock."""
    files = (path for path in folder.path.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {
        str(path.relative_to(folder.path)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def sum_of_log(folder: RunFolder) -> torch.Tensor:
    """Return the initial model and all that the log says was added to it."""
    log, initial = UpdateLog.open(folder.log_path), folder.read_initial()
    return wire.Layout.of(initial).flatten(initial) + sum(log.weighted_sum(i) for i in log.clients())


def test_two_parts_are_one_run(small: RunFolder, tmp_path: Path) -> None:
    """Three rounds and two more are five, to the bit: the model, the log with its chain, and the costs."""
    before = content_of(small)
    longer = go_on(small, 2)
    whole = trained(tmp_path / "whole", "run.rounds=5")
    assert torch.equal(flat_model(longer), flat_model(whole))
    log, other = UpdateLog.open(longer.log_path), UpdateLog.open(whole.log_path)
    assert log.sha256() == other.sha256()
    assert torch.allclose(sum_of_log(longer), flat_model(longer), atol=1e-6)
    assert longer.name == "small-to-5"
    found, expected = longer.read_summary(), whole.read_summary()
    assert found["traffic"] == expected["traffic"]
    assert found["completed-rounds"] == 5
    assert [line["round"] for line in longer.read_metrics()] == [1, 2, 3, 4, 5]
    assert all(check.status == "ok" for check in verify_run(longer))
    assert content_of(small) == before
    subtracted = forget(longer, CLIENT_2, SUBTRACT)
    assert subtracted == forget(whole, CLIENT_2, SUBTRACT)
    models = [(f.forget_folder(subtracted) / "model.safetensors").read_bytes() for f in (longer, whole)]
    assert models[0] == models[1]


def test_a_schedule_that_has_ended_stays_at_its_end(tmp_path: Path) -> None:
    """Two rounds of a cosine and one more are three of which two are scheduled."""
    cosine = ("train.schedule=cosine", "train.schedule-final=0.1")
    longer = go_on(trained(tmp_path / "parts", *cosine, "run.rounds=2"), 1)
    whole = trained(tmp_path / "whole", *cosine, "run.rounds=3", "train.schedule-rounds=2")
    assert torch.equal(flat_model(longer), flat_model(whole))
    other = trained(tmp_path / "other", *cosine, "run.rounds=3")
    assert not torch.equal(flat_model(longer), flat_model(other))
    assert RunConfig.from_toml(longer.path / "config.toml").train.schedule_rounds == 2


def test_after_a_forgetting_the_client_stays_out(small: RunFolder) -> None:
    """Worked by the log: the model is that of the forgetting, and what the others sent in two more rounds."""
    before = content_of(small)
    longer = go_on(small, 2, FORGOTTEN)
    assert [line["accepted"] for line in longer.read_metrics()] == [["0", "1", "2"]] * 3 + [["0", "1"]] * 2
    log = UpdateLog.open(longer.log_path)
    assert set(log.purged()) == {"2"}
    assert not list(log.path.rglob("2.safetensors"))
    assert list(longer.read_summary()["clients"]) == ["0", "1"]
    layout = log.layout
    start = layout.flatten(RunFolder(small.path / "forget" / FORGOTTEN).read_model())
    added = sum(entry.weight * log.delta(t, entry.client_id) for t in (4, 5) for entry in log.entries(t))
    assert torch.allclose(start + added, flat_model(longer), atol=1e-6)
    assert content_of(small) == before
    with pytest.raises(BadInput, match="client 2 was forgotten before"):
        forget(longer, CLIENT_2, SUBTRACT)
    name = forget(longer, ForgetRequest(clients=("1",)), SUBTRACT)
    certificate = json.loads((longer.path / "forget" / name / "certificate.json").read_text())["certificate"]
    assert [request["clients"] for request in certificate["forgotten"]] == [["2"]]
    assert certificate["origin"]["forgetting"] == FORGOTTEN
    taken = layout.flatten(RunFolder(longer.path / "forget" / name).read_model())
    assert torch.allclose(taken, flat_model(longer) - log.weighted_sum("1"), atol=1e-6)  # Of both parts
    assert all(check.status == "ok" for check in verify_run(longer))


@pytest.mark.check
def test_after_a_forgotten_class_nobody_trains_on_it(small: RunFolder) -> None:
    name = forget(small, ForgetRequest(classes=(7,)), ForgetSettings(method="finetune"))
    longer = go_on(small, 1, name)
    examples = {e.client_id: e.num_examples for e in UpdateLog.open(longer.log_path).entries(4)}
    counts = small.read_summary()["clients"]
    assert examples == {i: sum(c["label-counts"]) - c["label-counts"][7] for i, c in counts.items()}
    assert any(c["label-counts"][7] for c in counts.values())
    with pytest.raises(BadInput, match="class 7 was forgotten before"):
        forget(longer, ForgetRequest(classes=(7,)), ForgetSettings(method="finetune"))
    again = forget(longer, ForgetRequest(clients=("1",)), ForgetSettings(method="retrain"))
    assert json.loads((longer.path / "forget" / again / "result.json").read_text())["details"]["rounds"] == 4


@pytest.mark.check
def test_an_interrupted_continuation_is_resumed(small: RunFolder) -> None:
    whole = go_on(small, 3, overrides=["run.name=whole"])
    with pytest.raises(Stopped):
        go_on(small, 3, overrides=["run.name=parted"], observer=StopAfter(2))
    parted = RunFolder.open(small.path.parent / "parted")
    assert torch.equal(flat_model(resume(parted)), flat_model(whole))
    (parted.path / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="--resume parted"):
        go_on(parted, 1)


@pytest.mark.check
@pytest.mark.parametrize("retention", ["full", "interval:2"])
def test_an_encrypted_log_gets_keys_of_its_own(tmp_path: Path, retention: str) -> None:
    keys = tmp_path / "keys"
    run = trained(tmp_path, "log.encrypted=true", f"log.keys={keys}", f"log.retention={retention}")
    longer = go_on(run, 1)
    first, second = UpdateLog.open(run.log_path), UpdateLog.open(longer.log_path)
    assert (first.verify(), second.verify()) == ({}, {})
    assert torch.equal(first.delta(1, "0"), second.delta(1, "0"))
    assert [e.weight for e in first.entries()] == [e.weight for e in second.entries() if e.round <= 3]
    remove(run)
    assert second.verify() == {}
    assert second.delta(1, "0").abs().sum() > 0


def test_a_child_of_a_run_that_keeps_its_best_begins_with_that(tmp_path: Path) -> None:
    run = trained(tmp_path, "run.keep=best", "data.validation-share=0.25", "run.rounds=4", "run.keep-by=loss")
    kept = run.read_summary()["completed-rounds"]
    longer = go_on(run, 1)
    assert longer.name == f"small-to-{kept + 1}"
    found = longer.read_summary()
    assert found["judged"]["trained"] == kept + 1
    assert [line["round"] for line in longer.read_metrics()] == list(range(1, kept + 2))
    assert UpdateLog.open(longer.log_path).rounds() == list(range(1, found["completed-rounds"] + 1))


def test_the_tree_and_the_warning(small: RunFolder, tmp_path: Path) -> None:
    longer, other = go_on(small, 1), go_on(small, 1, FORGOTTEN, ["run.name=clean"])
    began = trained(tmp_path, "run.name=began", "run.rounds=1", f"model.weights={small.path}")
    name = forget(small, CLIENT_2, ForgetSettings(method="fast-fedul"))
    path = small.path / "forget" / name
    expected = [
        "run began began with the weights of small and still holds client 2: train it anew with the weights "
        "of a model that forgot it (model.weights = RUN/forget/NAME)",
        "run small-to-4 went on from small and still holds client 2: forget it there as well (lethe forget "
        "small-to-4)",
    ]
    assert json.loads((path / "result.json").read_text())["warnings"] == expected
    certificate = json.loads((path / "certificate.json").read_text())["certificate"]
    assert certificate["descendants"] == [
        {"how": "weights", "id": began.run_id, "run": "began"},
        {"how": "continued", "id": longer.run_id, "run": "small-to-4"},
    ]
    assert set(expected) <= set(certificate["limits"])
    assert [(b.depth, b.row["name"], b.said) for b in tree_of_runs(tmp_path)] == [
        (0, "small", ""),
        (1, "began", "began with the weights of small after round 3"),
        (1, "clean", "went on from small/forget/client-2-subtract after round 3"),
        (1, "small-to-4", "went on from small after round 3"),
    ]
    assert other.name == "clean"
    forget(longer, CLIENT_2, SUBTRACT)
    remove(began)
    forget(small, CLIENT_2, SUBTRACT)
    again = json.loads((small.path / "forget" / FORGOTTEN / "result.json").read_text())
    assert again["warnings"] == []  # All that held it have forgotten it, or are gone


def refused(folder: RunFolder, message: str, *overrides: str, rounds: int = 1, after: str = "") -> None:
    beside = {path.name for path in folder.path.parent.iterdir()}
    with pytest.raises(BadInput, match=message):
        go_on(folder, rounds, after, overrides)
    assert {path.name for path in folder.path.parent.iterdir()} == beside


def test_a_second_time_takes_a_free_name(small: RunFolder) -> None:
    made = [go_on(small, 1), go_on(small, 1), go_on(small, 1, FORGOTTEN)]
    assert [run.name for run in made] == ["small-to-4", "small-to-4-2", "small-to-4-3"]
    assert torch.equal(flat_model(made[0]), flat_model(made[1]))
    assert not torch.equal(flat_model(made[0]), flat_model(made[2]))
    assert made[1].read_summary()["name"] == "small-to-4-2"


def test_what_is_refused_leaves_nothing(small: RunFolder) -> None:
    refused(small, r"--rounds: given 0, allowed an integer >= 1", rounds=0)
    refused(small, "no forgetting 'client-9-subtract'; known: client-2-subtract", after="client-9-subtract")
    refused(
        small, r"--set train\.learning-rate: a run that goes on keeps its config", "train.learning-rate=1"
    )
    refused(small, "small exists already", "run.name=small")
    with pytest.raises(BadInput, match="expected a run, or RUN/forget/NAME"):
        find_place("small/forget/a/b", small.path.parent)
    with pytest.raises(BadInput, match="no such run"):
        find_place("nothing", small.path.parent)
    assert find_place(f"small/forget/{FORGOTTEN}", small.path.parent)[1] == FORGOTTEN
    (small.path / "model.safetensors").unlink()
    refused(small, r"'small' is not finished.*lethe train --resume small")


def test_a_copy_that_fails_leaves_nothing(small: RunFolder) -> None:
    (small.path / "log" / "index.sqlite").write_bytes(b"no index")
    before = {path.name for path in small.path.parent.iterdir()}
    with pytest.raises(Exception, match="index"):
        go_on(small, 1)
    assert {path.name for path in small.path.parent.iterdir()} == before


def test_a_half_written_continuation_is_not_resumed(small: RunFolder) -> None:
    with pytest.raises(Stopped):
        go_on(small, 2, FORGOTTEN, observer=StopAfter(1))
    half = RunFolder(small.path.parent / "small-to-5")
    half.erase_checkpoint()
    with pytest.raises(
        BadInput, match=r"was to go on from small/forget/client-2-subtract, and is half written"
    ):
        resume(half)


@pytest.mark.parametrize(
    ("overrides", "after", "over_network", "message"),
    [
        (["privacy.unit=example", "privacy.epsilon=8"], "", False, "is private: its noise is solved"),
        (["privacy.secure-aggregation=true", "log.enabled=false"], "", False, "hides its clients' updates"),
        (["strategy.name=one-shot", "run.rounds=1"], "", False, "single round"),
        (["strategy.name=ditto"], FORGOTTEN, False, "a model of its own, of which every forgetting"),
        (["strategy.name=ditto"], "", True, "a model of its own at its node"),
    ],
)
def test_what_a_second_training_cannot_continue(
    small: RunFolder, overrides: list[str], after: str, over_network: bool, message: str
) -> None:
    session = sessions.open_session(small, overrides)
    with pytest.raises(BadInput, match=message):
        _check_continuable(small, session, after, over_network)


def test_a_changed_project_is_refused(small: RunFolder) -> None:
    document = json.loads((small.path / "data.json").read_text())
    document["project"] = {"folder": "/x", "sha256": "a" * 64}
    (small.path / "data.json").write_text(json.dumps(document))
    config = RunConfig().with_overrides(["run.project=hospital.project:project"])
    check_project(small, config, {"folder": "/y", "sha256": "a" * 64})
    with pytest.raises(BadInput, match=r"run\.project: the code of hospital\.project:project has changed"):
        check_project(small, config, {"folder": "/x", "sha256": "b" * 64})

"""What a run leaves behind, and what is refused."""

import re
from pathlib import Path

import pytest
import torch

from strategies.core.errors import BadInput, LetheError, RunCorrupt
from strategies.core.seeds import numpy_generator
from strategies.runs.checkpoint import Checkpoint
from strategies.runs.files import read_json, write_json
from strategies.runs.folder import RunFolder
from strategies.runs.json_lines import append_line, read_lines
from tests.strategies.update_logs import checkpoint_until_killed, flip_byte, kill_after

CONFIG = '[run]\nname = "ä"\n'
DONE = {"strategy": "fedavg", "rounds": 4, "seconds": 1.5, "final": {"loss": None}, "clients": {"a": {}}}
STATE = {"b": torch.ones(2), "a": torch.zeros(1, dtype=torch.int64)}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Return a fresh run folder."""
    return RunFolder.create(tmp_path / "home", "run", CONFIG)


def test_a_fresh_folder_holds_the_config_and_its_mark(folder: RunFolder) -> None:
    assert sorted(p.name for p in folder.path.iterdir()) == ["config.toml", "run.json"]
    assert folder.read_config() == CONFIG
    marker = read_json(folder.path / "run.json")
    assert (marker["format"], marker["version"]) == ("lethe-run", 1)
    assert (folder.read_checkpoint(), folder.read_metrics(), folder.forget_requests()) == (None, [], [])
    assert folder.log_path == folder.path / "log"


def test_what_is_written_is_read(folder: RunFolder) -> None:
    folder.write_initial(STATE)
    folder.write_model({"b": torch.full((2,), 2.0), "a": STATE["a"]})
    folder.write_summary(DONE)
    folder.write_checkpoint(Checkpoint(4, STATE))
    folder.append_metrics({"round": 1})
    assert folder.write_report("<html>") == folder.path / "report.html"
    again = RunFolder.open("run", folder.path.parent)
    assert list(again.read_initial()) == ["b", "a"]
    assert again.read_initial()["b"].tolist() == [1.0, 1.0]
    assert again.read_model()["b"].tolist() == [2.0, 2.0]
    assert again.read_summary() == DONE
    checkpoint = again.read_checkpoint()
    assert checkpoint is not None
    assert checkpoint.round == 4
    assert again.read_metrics() == [{"round": 1}]


def test_resuming_drops_what_came_after_the_checkpoint(folder: RunFolder) -> None:
    for number in (1, 2, 3):
        folder.append_metrics({"round": number})
    folder.rewind_metrics(2)
    assert folder.read_metrics() == [{"round": 1}, {"round": 2}]


def test_requests_have_folders_of_their_own(folder: RunFolder) -> None:
    path = folder.forget_folder("client-3")
    assert path == folder.path / "forget" / "client-3"
    assert folder.forget_folder("client-3") == path
    assert folder.forget_requests() == ["client-3"]
    with pytest.raises(BadInput, match=r"name '../log': expected a plain folder name"):
        folder.forget_folder("../log")


def test_retrainings_that_a_comparison_keeps_are_no_answer(folder: RunFolder) -> None:
    """They lie where an answer by `retrain` would, which may have been given as well, or not."""
    folder.forget_folder("client-1-retrain")  # Half answered: a model may follow
    place = folder.forget_folder("client-3-retrain")
    (place / "retrain-seed-1.safetensors").touch()
    assert folder.forget_requests() == ["client-1-retrain"]
    (place / "model.safetensors").touch()
    assert folder.forget_requests() == ["client-1-retrain", "client-3-retrain"]


def test_a_killed_run_leaves_its_last_checkpoint(folder: RunFolder) -> None:
    """The checkpoint of round n holds a vector of n, and the metrics end with round n or n + 1."""
    seen, generator = 0, numpy_generator(0, "kill")
    while seen < 10:
        kill_after(float(generator.uniform(0.05, 0.3)), checkpoint_until_killed, folder.path)
        checkpoint = folder.read_checkpoint()
        if checkpoint is None:
            continue
        assert checkpoint.round >= seen
        seen = checkpoint.round
        assert set(checkpoint.state["w"].tolist()) == {float(seen)}
        assert [line["round"] for line in folder.read_metrics()] in (
            list(range(1, seen + 1)),
            list(range(1, seen + 2)),
        )


def test_an_existing_run_is_not_written_over(folder: RunFolder) -> None:
    with pytest.raises(BadInput, match=r"run 'run': .* exists already; choose another run\.name, or resume"):
        RunFolder.create(folder.path.parent, "run", CONFIG)
    (folder.path.parent / "empty").mkdir()
    assert RunFolder.create(folder.path.parent, "empty", CONFIG).name == "empty"


def test_a_name_that_leaves_the_home_is_refused(tmp_path: Path) -> None:
    for name in ("..", "a/b", "/tmp/x"):
        with pytest.raises(BadInput, match="expected a plain folder name"):
            RunFolder.create(tmp_path / "home", name, CONFIG)
    assert not (tmp_path / "home").exists()


def test_a_name_is_made_up_from_the_strategy(tmp_path: Path) -> None:
    assert RunFolder.create(tmp_path, "", CONFIG, "fedprox").name.endswith("-fedprox")


def test_what_is_no_run_is_refused(tmp_path: Path, folder: RunFolder) -> None:
    with pytest.raises(BadInput, match=r"run 'absent': no such run or folder; the last runs in .* are run"):
        RunFolder.open("absent", folder.path.parent)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="empty is empty or no folder; expected the folder of a run"):
        RunFolder.open(tmp_path / "empty")
    with pytest.raises(BadInput, match=r"run\.json is missing, so this is not the folder of a run"):
        RunFolder.open(tmp_path)
    (folder.path / "run.json").unlink()
    with pytest.raises(
        BadInput, match=r"run\.json is missing, so this is only half written; make the run anew"
    ):
        RunFolder.open(folder.path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, r"run\.json: version 2 of the run folder, this Lethe reads version 1"),
        ({"format": "x"}, r"run\.json: format 'x', expected 'lethe-run'"),
    ],
)
def test_other_versions_are_refused(folder: RunFolder, changes: dict[str, object], message: str) -> None:
    write_json(folder.path / "run.json", read_json(folder.path / "run.json") | changes)
    with pytest.raises(BadInput, match=message):
        RunFolder.open(folder.path)


def test_a_changed_or_missing_config_is_named(folder: RunFolder) -> None:
    (folder.path / "config.toml").write_text(CONFIG + "seed = 1\n")
    with pytest.raises(RunCorrupt, match=r"config\.toml: damaged or edited since the run was made"):
        RunFolder.open(folder.path)
    (folder.path / "config.toml").unlink()
    with pytest.raises(RunCorrupt, match=r"config\.toml: missing"):
        RunFolder.open(folder.path)
    (folder.path / "run.json").write_text("{")
    with pytest.raises(RunCorrupt, match=r"run\.json: damaged, not JSON"):
        RunFolder.open(folder.path)


def test_a_run_that_is_not_finished_says_so(folder: RunFolder) -> None:
    with pytest.raises(BadInput, match=r"model\.safetensors is missing; the run is not finished, resume it"):
        folder.read_model()
    with pytest.raises(BadInput, match=r"summary\.json is missing; the run is not finished, resume it"):
        folder.read_summary()


def test_the_nodes_of_a_run_are_read_back_or_named_as_damaged(folder: RunFolder) -> None:
    """Node ids are numbers of 64 bits; anything else in their place is damage."""
    assert folder.read_nodes() == {}
    folder.write_nodes({"ward": 2**64 - 1})
    assert folder.read_nodes() == {"ward": 2**64 - 1}
    (folder.path / "nodes.json").write_text('{"ward": "7"}', encoding="utf-8")
    with pytest.raises(RunCorrupt, match="expected a number of a node for each client-id"):
        folder.read_nodes()


def test_flipped_bytes_in_models_are_named(folder: RunFolder) -> None:
    folder.write_initial(STATE)
    folder.write_model(STATE)
    flip_byte(folder.path / "initial.safetensors", -1)
    flip_byte(folder.path / "model.safetensors", 100)
    with pytest.raises(RunCorrupt, match=r"initial\.safetensors: damaged"):
        folder.read_initial()
    with pytest.raises(RunCorrupt, match=r"model\.safetensors: damaged"):
        folder.read_model()


def test_a_full_disk_keeps_the_last_checkpoint(folder: RunFolder) -> None:
    folder.write_checkpoint(Checkpoint(1, STATE))
    (folder.path / "checkpoint.safetensors.tmp").symlink_to("/dev/full")
    with pytest.raises(LetheError, match=r"checkpoint\.safetensors: the disk is full"):
        folder.write_checkpoint(Checkpoint(2, STATE))
    checkpoint = folder.read_checkpoint()
    assert checkpoint is not None
    assert checkpoint.round == 1


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("round", "2", "round"),
        ("round", True, "round"),
        ("round", 2**70, "round"),
        ("test-accuracy", "high", "test-accuracy"),
        ("seconds", [], "seconds"),
        ("bytes-up", -1, "bytes-up"),
        ("clients", {"0": {"accuracy": "high"}}, "clients.0.accuracy"),
        ("clients", [1], "clients"),
        ("accepted", [0], "accepted.0"),
        ("faults", [{"client": "0", "scope": "round 1"}], "faults.0.reason"),
        ("epsilons", {"0": "1"}, "epsilons.0"),
    ],
)
def test_a_line_of_the_metrics_with_a_wrong_field_is_named(
    folder: RunFolder, field: str, value: object, named: str
) -> None:
    right = {"round": 1, "test-accuracy": None, "seconds": 1.0, "clients": {"0": {"accuracy": None}}}
    folder.append_metrics(right)
    folder.append_metrics(right | {field: value})
    with pytest.raises(RunCorrupt, match=rf"metrics\.jsonl: line 2: damaged at '{re.escape(named)}"):
        folder.read_metrics()


def test_lines_of_the_metrics_that_are_of_no_round_are_anybodys(folder: RunFolder) -> None:
    folder.append_metrics({"event": "start", "seconds": "none"})
    assert folder.read_metrics() == [{"event": "start", "seconds": "none"}]


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("faults", [{"client": "a"}], "faults.0.scope"),
        ("notes", [1], "notes.0"),
        ("traffic", {"bytes-up": 1}, "traffic.bytes-down"),
        ("data", {"class-names": [0]}, "data.class-names.0"),
        ("model", {"parameters": "many"}, "model.parameters"),
        ("log", [1], "log"),
        ("analytics", {"bins": [0]}, "analytics.counts"),
        ("analytics", {"bins": [0], "counts": []}, "analytics"),
        ("privacy", {"unit": "client"}, "privacy.neighbours"),
        ("final", {"loss": 1e200}, "final.loss"),
        ("clients", {"a": {"label-counts": [-1]}}, "clients.a.label-counts.0"),
    ],
)
def test_a_summary_with_a_wrong_field_is_named(
    folder: RunFolder, field: str, value: object, named: str
) -> None:
    folder.write_summary(DONE | {field: value})
    with pytest.raises(RunCorrupt, match=rf"summary\.json: damaged at '{re.escape(named)}'"):
        folder.read_summary()


@pytest.mark.parametrize("torn", [1, 70_000, 200_000])
def test_a_long_line_that_was_cut_off_is_dropped_by_the_next(tmp_path: Path, torn: int) -> None:
    """It may be longer than what is read of the file at a time, and all that there is."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"x" * torn)
    append_line(path, {"round": 1})
    with path.open("ab") as file:
        file.write(b"y" * torn)
    append_line(path, {"round": 2})
    assert read_lines(path) == [{"round": 1}, {"round": 2}]

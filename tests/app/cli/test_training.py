"""app/cli/training.py: options reach the workflow, and results reach the user."""

import json
from pathlib import Path

import pytest

from app.cli import training
from app.config.run_config import RunConfig
from strategies.core.errors import BadInput
from strategies.runs.folder import RunFolder
from tests.app.cli.conftest import Command, Workflows


def trained_config(workflows: Workflows) -> RunConfig:
    (name, config), *rest = workflows.calls
    assert name == "train"
    assert not rest
    assert isinstance(config, RunConfig)
    return config


def test_later_settings_win(lethe: Command, workflows: Workflows, tmp_path: Path) -> None:
    """The file over the defaults, --set over the file, --home over both."""
    file = tmp_path / "study.toml"
    file.write_text('[run]\nrounds = 4\nseed = 5\nhome = "elsewhere"\n')
    assert lethe("train", "--config", str(file), "--set", "run.seed=6", "--set", "run.name=mine").status == 0
    config = trained_config(workflows)
    assert (config.run.rounds, config.run.seed, config.run.name) == (4, 6, "mine")
    assert config.run.home == str(tmp_path)


def test_json_is_one_object_and_nothing_else(lethe: Command, workflows: Workflows, tmp_path: Path) -> None:
    ended = lethe("train", "--set", "run.name=mine", "--json")
    assert ended.status == 0
    document = json.loads(ended.out)
    assert document["name"] == "mine"
    assert document["path"] == str(tmp_path / "mine")
    assert document["final"] == {"test-accuracy": 50.0, "test-loss": 1.0}
    assert Path(document["report"]).read_text().startswith("<!DOCTYPE html>")
    assert "train mine: round 1, accuracy 40.0 %" in ended.err


def test_people_see_a_table_and_where_things_lie(
    lethe: Command, workflows: Workflows, tmp_path: Path
) -> None:
    ended = lethe("train")
    header, row, folder, report = (line.split() for line in ended.out.splitlines())
    assert header == ["run", "rounds", "test-accuracy", "test-loss", "seconds"]
    assert row == ["made-up", "2", "50", "1", "1.2"]
    assert folder == ["folder:", str(tmp_path / "made-up")]
    assert report == ["report:", str(tmp_path / "made-up" / "report.html")]


def test_remarks_cannot_steer_the_terminal(lethe: Command, workflows: Workflows) -> None:
    ended = lethe("train")
    assert "note: client ·[31m3·[0m is late" in ended.err
    assert "\x1b" not in ended.err + ended.out


def test_resume(lethe: Command, workflows: Workflows, tmp_path: Path) -> None:
    workflows.fails = KeyboardInterrupt()
    lethe("train")
    workflows.fails = None
    assert lethe("train", "--resume", str(tmp_path / "made-up"), "--json").status == 0
    assert workflows.calls[-1] == ("resume", "made-up")


def test_demo_shows_the_three_models_of_both_clients(
    lethe: Command, workflows: Workflows, tmp_path: Path
) -> None:
    ended = lethe("demo")
    assert workflows.calls == [("demo", [f"run.home={tmp_path}"])]
    lines = [line.split() for line in ended.out.splitlines()]
    for client, first in (("3", 0), ("5", 7)):
        assert lines[first] == f"Client {client}, forgotten by fast-distill:".split()
        assert lines[first + 1] == ["model", "TA", "RA", "UA", "MIA", "ASR", "seconds"]
        assert lines[first + 2] == ["before", "97.0", "99.0", "1.0", "3.0", "61.0", "2.0"]
        assert lines[first + 3] == ["after", "95.0", "99.0", "7.5", "3.0", "1.0", "0.50"]
        assert lines[first + 4] == ["retrained", "96.0", "99.0", "6.0", "3.0", "0.5", "2.0"]
    assert "disparity: 0.2 points (mean distance to the retrained model)" in ended.out.splitlines()
    assert "verdict: closer" in ended.out.splitlines()
    assert "one seed" in ended.out
    assert ended.out.splitlines()[-1] == f"report: {tmp_path / 'r.html'}"


def test_demo_json(lethe: Command, workflows: Workflows, tmp_path: Path) -> None:
    document = json.loads(lethe("demo", "--json").out)
    assert document["path"] == str(tmp_path / "demo")
    audits = document["audits"]
    assert list(audits) == ["client-3-fast-distill", "client-5-fast-distill"]
    assert audits["client-3-fast-distill"]["after"]["attack_success_rate"] == 1.0


@pytest.mark.parametrize("command", ["train", "demo"])
def test_without_home_runs_go_where_the_config_says(
    lethe: Command, workflows: Workflows, command: str
) -> None:
    lethe(command, "--set", "run.home=~/nowhere", "--set", "run.rounds=0", home=False)
    assert workflows.calls == []


def test_a_private_and_personalised_run_shows_both_in_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The client that spent most counts; the accuracy that clients have in the end comes first."""
    spent = {"0": {"epsilon": 0.5}, "1": {"epsilon": 1.5}}
    told = {"unit": "example", "delta": 1e-05, "neighbours": "differ in one example", "clients": spent}
    final = {"test-accuracy": 31.5, "personal-accuracy": 84.8}
    training._print_training("mine", {"final": final, "rounds": 2, "seconds": 1.25, "privacy": told})
    header, row, privacy = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "rounds", "personal-accuracy", "test-accuracy", "ε", "seconds"]
    assert row.split() == ["mine", "2", "84.8", "31.5", "1.50", "1.2"]
    assert privacy == "privacy: ε = 1.50 at δ = 1e-05 per example: two data sets differ in one example"


def test_continue_hands_place_and_rounds_on(
    lethe: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import app.workflows as real

    run = RunFolder.create(tmp_path, "first", RunConfig().to_toml())
    asked: list[tuple[object, ...]] = []

    def go_on(folder: RunFolder, *arguments: object) -> None:
        asked.append((folder.name, *arguments[:3]))
        raise BadInput("enough")

    monkeypatch.setattr(real, "go_on", go_on)
    lethe("train", "--continue", "first", "--rounds", "3", "--set", "run.name=second")
    lethe("train", "--continue", "first/forget/client-3-subtract")
    assert asked == [
        ("first", 3, "", ["run.name=second", f"run.home={tmp_path}"]),
        ("first", 10, "client-3-subtract", [f"run.home={tmp_path}"]),
    ]
    assert run.name == "first"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--continue", "a", "--resume", "b"], "give one of them"),
        (["--continue", "a", "--config", "x.toml"], "--continue: the run keeps its config"),
        (["--rounds", "0"], "--rounds 0: only with --continue; a new run has --set run.rounds=0"),
        (["--continue", "nothing"], "run 'nothing': no such run"),
    ],
)
def test_options_that_do_not_go_together(lethe: Command, arguments: list[str], message: str) -> None:
    ended = lethe("train", *arguments)
    assert ended.status == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1

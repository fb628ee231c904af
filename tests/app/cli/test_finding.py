"""app/cli/finding.py: what can be named, one run on a screen, two runs beside each other."""

import json
from pathlib import Path

import pytest

from app.cli.entry import run
from tests.app.cli.conftest import Command
from tests.app.report.run_folders import add_audit, add_forgetting, add_rounds, finish, new_run


def finished(home: Path, name: str, overrides: tuple[str, ...] = (), **summary: object) -> None:
    folder = new_run(home, name, overrides)
    add_rounds(folder)
    finish(folder, **summary)
    (folder.path / "model.safetensors").touch()


@pytest.mark.parametrize("kind", ["strategies", "models", "data", "methods", "tasks"])
def test_everything_that_can_be_named_has_a_line_and_a_page_that_exists(lethe: Command, kind: str) -> None:
    found = json.loads(lethe("list", kind, "--json", home=False).out)[kind]
    root = Path(__file__).parents[3]
    assert found
    assert all(entry["summary"] and (root / entry["page"]).exists() for entry in found)
    lines = lethe("list", kind, home=False).out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *(entry["name"] for entry in found)]


def test_an_unknown_kind_is_refused(lethe: Command) -> None:
    ended = lethe("list", "cakes", home=False)
    assert (ended.status, ended.err) == (
        2,
        "lethe: list: given 'cakes', allowed strategies, models, data, methods, tasks\n",
    )


def test_a_run_on_one_screen(lethe: Command, tmp_path: Path) -> None:
    finished(tmp_path, "study", ("train.learning-rate=0.2",))
    folder = new_run(tmp_path, "bare")
    shown = lethe("show", "study").out
    assert shown.startswith("study: finished, fedavg, ")
    assert "  train.learning-rate = 0.2\n" in shown
    assert "run.name" not in shown
    assert f"model: {tmp_path / 'study' / 'model.safetensors'}" in shown
    assert lethe("show", "bare").out.startswith("bare: unfinished")
    document = json.loads(lethe("show", "bare", "--json").out)
    assert (document["state"], document["path"], document["figures"]) == ("unfinished", str(folder.path), {})


def test_a_forgetting_on_one_screen(lethe: Command, tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    add_rounds(folder)
    finish(folder)
    path = add_forgetting(folder, "subtract", audited=False)
    place = f"study/forget/{path.name}"
    assert f"run study, {path.name}: client 1 by subtract; not audited" in lethe("show", place).out
    add_audit(path, "subtract")
    ended = lethe("show", place)
    assert "retrained" in ended.out
    assert "not audited" not in ended.out
    assert json.loads(lethe("show", place, "--json").out)["method"] == "subtract"
    (path.parent / "client-2-distill").mkdir()
    assert "client-2-distill: not complete" in lethe("show", "study").out
    ended = lethe("show", "study/forget/nothing")
    assert (ended.status, ended.err) == (
        2,
        f"lethe: run 'study': no forgetting 'nothing'; known: {path.name}, client-2-distill\n",
    )


def test_two_runs_beside_each_other(lethe: Command, tmp_path: Path) -> None:
    finished(tmp_path, "one")
    finished(tmp_path, "two", ("train.learning-rate=0.2",), seconds=99.0)
    document = json.loads(lethe("diff", "one", "two", "--json").out)
    assert document["config"] == {"train.learning-rate": [0.05, 0.2]}
    assert document["data"] == document["code"] == {} or set(document["code"]) <= {"version"}
    seconds = document["figures"]["seconds"]
    assert seconds["difference"] == pytest.approx(99.0 - seconds["first"])
    shown = lethe("diff", "one", "two").out
    assert "train.learning-rate  0.05" in shown
    assert lethe("diff", "one", "one").out.startswith("config, data and code are the same\n")
    assert lethe("diff", "one", "nothing").status == 2


def test_a_pruned_run_has_a_name(tmp_path: Path) -> None:
    finished(tmp_path, "study")
    finished(tmp_path / "study" / "pruned", "omp-0.95")
    assert run(["show", "study/pruned/omp-0.95", "--home", str(tmp_path)]) == 0
    assert run(["show", "study/pruned/omp-0.9", "--home", str(tmp_path)]) == 2

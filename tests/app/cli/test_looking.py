"""app/cli/looking.py: what there is, as JSON and in words."""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from app.cli import looking
from tests.app.cli.conftest import Command, Workflows
from tests.app.report.run_folders import new_run
from unlearning.methods import METHODS


def test_report_prints_its_path(lethe: Command, tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    path = folder.path / "report.html"
    assert lethe("report", "study").out == f"{path}\n"
    assert path.exists()
    document = json.loads(lethe("report", "study", "--json").out)
    assert document == {"run": "study", "path": str(folder.path), "report": str(path)}


def test_several_runs_stand_side_by_side(lethe: Command, tmp_path: Path) -> None:
    new_run(tmp_path, "first")
    new_run(tmp_path, "second")
    path = tmp_path / "first+second.html"
    assert lethe("report", "first", "second").out == f"{path}\n"
    assert path.exists()
    other = tmp_path / "other.html"
    document = json.loads(lethe("report", "first", "second", "--output", str(other), "--json").out)
    assert document == {"runs": ["first", "second"], "report": str(other)}
    assert other.exists()
    assert "first+second" not in lethe("runs").out


def test_several_runs_side_by_side_are_refused_in_one_line(lethe: Command, tmp_path: Path) -> None:
    new_run(tmp_path, "first")
    new_run(tmp_path, "second")
    for arguments, said in (
        (["first", "first"], 'RUN: given "first" twice, expected different runs'),
        (["first", "--output", "x.html"], "--output x.html: needs several runs"),
        (["first", "second", "--output", "no/x.html"], "--output no/x.html: no is no folder"),
        (["first", "none"], "run 'none': no such run"),
    ):
        ended = lethe("report", *arguments)
        assert (ended.status, ended.out, said in ended.err) == (2, "", True)
    assert list(tmp_path.glob("*.html")) == []


def test_runs(lethe: Command, workflows: Workflows, tmp_path: Path) -> None:
    lines = [line.split() for line in lethe("runs").out.splitlines()]
    assert lines == [
        ["run", "state", "strategy", "rounds", "accuracy", "seconds", "forgotten"],
        ["a", "unfinished", "–", "–", "–", "–", "–"],
        ["b", "finished", "fedavg", "15", "96.2", "1.5", "client-3-distill"],
    ]
    document = json.loads(lethe("runs", "--json").out)
    assert document["home"] == str(tmp_path)
    assert [row["name"] for row in document["runs"]] == ["a", "b"]


def test_no_runs(lethe: Command, workflows: Workflows, tmp_path: Path) -> None:
    place = str(tmp_path / "nothing")
    assert lethe("runs", "--home", place, home=False).out == (
        f"no runs in {place}; lethe train or lethe demo makes one\n"
    )
    assert json.loads(lethe("runs", "--home", place, "--json", home=False).out)["runs"] == []


def test_the_home_can_be_set_as_any_key_can(lethe: Command, tmp_path: Path) -> None:
    place = f"run.home={tmp_path}"
    new_run(tmp_path)
    assert "study" in lethe("runs", "--set", place, home=False).out
    assert lethe("report", "study", "--set", place, home=False).status == 0
    assert json.loads(lethe("verify", "study", "--set", place, "--json", home=False).out)["valid"]
    for command in (["forget"], ["audit"], ["compare"]):
        ended = lethe(*command, "study", "--client", "1", "--set", place, home=False)
        assert "no such run" not in ended.err
        assert "keeps its config" not in ended.err
    ended = lethe("runs", "--set", "run.seed=1", home=False)
    assert (ended.status, ended.err) == (2, "lethe: --set run.seed=1: lethe runs reads run.home only\n")
    ended = lethe("runs", "--set", "run.home=/elsewhere")
    assert ended.status == 2
    assert f"--home {tmp_path} and --set run.home=/elsewhere: give one of them" in ended.err


def test_every_method_is_in_the_table_and_in_the_json(lethe: Command) -> None:
    found = json.loads(lethe("methods", "--json", home=False).out)["methods"]
    assert [method["name"] for method in found] == list(METHODS)
    assert all(method["guarantee"] and method["cost"] and method["source"] for method in found)
    head, *rows = [re.split(r" {2,}", line.strip()) for line in lethe("methods", home=False).out.splitlines()]
    assert head == ["method", "requests", "what it does", "guarantee", "source"]
    assert rows == [
        [m["name"], ", ".join(m["serves"]), m["summary"], m["guarantee"], m["source"]] for m in found
    ]


def test_one_method_is_described_in_full(lethe: Command) -> None:
    assert lethe("methods", "subtract", home=False).out.splitlines() == [
        "subtract: subtract the client's logged updates",
        "    serves:    client",
        "    needs:     an update log (any retention that keeps sums)",
        "    cost:      no round, no client visit",
        f"    guarantee: {METHODS['subtract'].guarantee}",
        "    source:    Wu, Zhu, Mitra, arXiv 2201.09441",
    ]
    ended = lethe("methods", "magic", home=False)
    assert ended.status == 2
    assert ended.err.startswith("lethe: unknown method 'magic'; known methods: subtract, fast-fedul")


def quick(observer: Any) -> Mapping[str, Any]:
    """Measure nothing."""
    observer.phase("quick", 1)
    return {
        "seconds": 0.5,
        "unknown": float("nan"),
        "rows": [{"clients": 10, "MB": 1.23456}, {"clients": 100}],
    }


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("benchmarks")
    module.BENCHMARKS = {"quick": quick, "slow": quick}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks", module)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.usefixtures("benchmarks")
def test_bench(lethe: Command) -> None:
    assert json.loads(lethe("bench", "quick", "--json", home=False).out) == {
        "benchmarks": {
            "quick": {
                "seconds": 0.5,
                "unknown": None,
                "rows": [{"clients": 10, "MB": 1.23456}, {"clients": 100}],
            }
        }
    }
    lines = lethe("bench", "quick", home=False).out.splitlines()
    assert lines[:4] == ["quick:", "    seconds: 0.5", "    unknown: nan", "    rows:"]
    assert [line.split() for line in lines[4:]] == [["clients", "MB"], ["10", "1.235"], ["100", "–"]]


@pytest.mark.usefixtures("benchmarks")
def test_benchmarks_are_listed(lethe: Command) -> None:
    assert lethe("bench", home=False).out == "quick: Measure nothing.\nslow: Measure nothing.\n"
    assert json.loads(lethe("bench", "--json", home=False).out) == {"benchmarks": ["quick", "slow"]}


@pytest.mark.usefixtures("benchmarks")
def test_an_unknown_benchmark_lists_the_known_ones(lethe: Command) -> None:
    ended = lethe("bench", "quick", "fast", home=False)
    assert ended.status == 2
    assert ended.err == "lethe: unknown benchmark 'fast'; known benchmarks: quick, slow\n"


def test_missing_benchmarks_are_said(lethe: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(looking, "__file__", str(tmp_path / "app" / "cli" / "looking.py"))
    ended = lethe("bench", "quick", home=False)
    assert ended.status == 1
    assert ended.err == "lethe: benchmarks are not installed; run lethe bench from a source checkout\n"


def test_needs_that_are_none() -> None:
    from unlearning.traits.base import Needs

    assert looking.needs_in_words(Needs()) == []
    assert looking.needs_in_words(Needs(log="full", remaining=True, forgotten=True)) == [
        "an update log of every round",
        "the remaining clients online",
        "the forgotten client online",
    ]


def test_options_of_benchmarks_are_passed_on_and_unknown_ones_refused(lethe: Command) -> None:
    """The message lists the benchmark's options."""
    ended = lethe("bench", "forgetting", "--set", "nope=1", home=False)
    assert ended.status == 2
    assert (
        "benchmark forgetting: unknown option 'nope'; its options are data_root, train_examples" in ended.err
    )

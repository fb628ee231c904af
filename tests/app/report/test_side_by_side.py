"""app/report/side_by_side.py: several runs in one page."""

import base64
import json
from pathlib import Path

import pytest

from app.report.page import write_report
from app.report.side_by_side import MOST_RUNS, page_name, write_side_by_side
from strategies.core.errors import BadInput
from strategies.runs.folder import RunFolder
from tests.app.report.run_folders import add_forgetting, add_rounds, finish, judged, new_run
from tests.app.report.test_page import HOSTILE, Page


def run(home: Path, name: str, rounds: int = 2, *overrides: str) -> RunFolder:
    folder = new_run(home, name, overrides)
    add_rounds(folder, rounds)
    finish(folder)
    return folder


def page(folders: list[RunFolder], home: Path) -> Page:
    return Page(write_side_by_side(folders, home / "page.html").read_text(encoding="utf-8"))


def test_figures_curves_config_and_forgettings_of_two_runs(tmp_path: Path) -> None:
    first, second = run(tmp_path, "first"), run(tmp_path, "second", 3, "train.local-epochs=7")
    judged(add_forgetting(second))
    write_report(first)
    found = page([first, second], tmp_path)
    # No backdoor was planted and no ε spent, so there are no columns for them
    assert ["run", "test loss", "rounds", "clients", "seconds", "from clients"] in found.rows
    assert ["first", "1.000", "2", "2", "1.2", "31.0 MB"] in found.rows
    assert ["second", "0.667", "3", "2", "1.2", "31.0 MB"] in found.rows
    assert ["key", "first", "second"] in found.rows
    assert ["train.local-epochs", "2", "7"] in found.rows
    assert not [row for row in found.rows if row[0] in ("run.name", "run.home", "run.seed")]
    assert [
        "second",
        "client 1",
        "distill",
        "0.50",
        "0.8",
        "further from retraining than doing nothing",
    ] in found.rows
    assert "Test accuracy, %: first 50.0 after round 2 and second 60.0 after round 3." in found.text
    links = [a["href"] for tag, a in found.tags if tag == "a"]
    assert "first/report.html" in links
    assert "second/report.html" not in links  # it has none yet


def test_only_rounds_in_the_model_count(tmp_path: Path) -> None:
    first, second = run(tmp_path, "first"), new_run(tmp_path, "second")
    add_rounds(second, 5)
    kept = {"keep": "best", "by": "validation-loss", "round": 2, "trained": 5, "best": 2, "value": 0.5}
    finish(second, judged={**kept, "validation-examples": 9})
    rows = page([first, second], tmp_path).rows
    assert ["second", "1.000", "2", "2", "1.2", "31.0 MB"] in rows


def test_runs_that_differ_in_nothing_or_have_nothing(tmp_path: Path) -> None:
    first, second = new_run(tmp_path, "first"), new_run(tmp_path, "second")
    text = page([first, second], tmp_path).text
    assert "They do not, but for the run's name and place." in text
    assert "No round was evaluated." in text
    assert "second: this run is not finished." in text


def test_runs_of_one_name_in_two_homes_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    found = page([run(tmp_path / "a", "same"), run(tmp_path / "b", "same", 3)], tmp_path)
    assert "same (1) and same (2)" in found.text


def test_all_figures_can_be_saved(tmp_path: Path) -> None:
    found = page([run(tmp_path, "first"), run(tmp_path, "second")], tmp_path)
    (link,) = [str(a["href"]) for tag, a in found.tags if tag == "a" and "download" in a]
    document = json.loads(base64.b64decode(link.partition(",")[2]))
    assert [each["name"] for each in document["runs"]] == ["first", "second"]


def test_a_hostile_name_is_only_text(tmp_path: Path) -> None:
    first, second = run(tmp_path, "first"), run(tmp_path, "second")
    second.write_summary({**second.read_summary(), "evaluations": {}, "notes": [HOSTILE]})
    request = {"kind": "client", "clients": [HOSTILE], "classes": [], "samples": {}}
    add_forgetting(second, method="distill", request={**request, "clients": ["1"]})
    html = write_side_by_side([first, second], tmp_path / "p.html").read_text(encoding="utf-8")
    assert html.count("<script") == 1
    assert Page(html).open == []


def test_refusals(tmp_path: Path) -> None:
    folder = run(tmp_path, "first")
    with pytest.raises(BadInput, match=r'^RUN: given "first" twice, expected different runs$'):
        write_side_by_side([folder, folder], tmp_path / "p.html")
    many = [new_run(tmp_path, f"run-{i}") for i in range(MOST_RUNS + 1)]
    with pytest.raises(BadInput, match=f"given 13 runs, allowed at most {MOST_RUNS}"):
        write_side_by_side(many, tmp_path / "p.html")
    assert not (tmp_path / "p.html").exists()


def test_a_long_name_becomes_a_short_one() -> None:
    assert page_name(["a", "b"]) == "a+b.html"
    name = page_name(["x" * 100, "y" * 100])
    assert name.startswith("runs-")
    assert len(name) < 40

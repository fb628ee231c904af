"""docs/matrix.py: the page tells what came of every run, and names all that the registries have."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.project import using
from app.project.loading import named
from docs import matrix, matrix_runs
from docs.matrix_runs import FAILED, REQUESTS, TASKS, WORKS, Runs, options, outcomes, strategies
from strategies import registry
from strategies.core.errors import BadInput
from strategies.tasks import choice
from unlearning.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
NONE = "{method} needs a log, but {strategy} has none"


def cells(strategy: str, refused: tuple[str, ...], kinds: tuple[str, ...] = ("client",)) -> matrix.Cells:
    """Return a column in which some methods are refused and all others work."""
    return {
        (method, kind): NONE.format(method=method, strategy=strategy) if method in refused else WORKS
        for method in METHODS
        for kind in kinds
    }


def test_equal_columns_and_equal_rows_are_together_and_equal_reasons_are_one() -> None:
    """All refuse `subtract` and one `retrain` as well: two columns, three rows."""
    columns = {
        "fedavg": cells("fedavg", ("subtract",)),
        "ditto": cells("ditto", ("subtract",)),
        "gossip": cells("gossip", ("subtract", "retrain")),
    }
    reasons = matrix.Reasons()
    rows = matrix.table(columns, "regression", reasons)
    rest = ", ".join(f"`{name}`" for name in METHODS if name not in {"subtract", "retrain"})
    assert rows == [
        "|  | `fedavg`<br>`ditto` | `gossip` |",
        "| --- | --- | --- |",
        "| `subtract` | 1 | 1 |",
        f"| {rest} | + | + |",
        "| `retrain` | + | 1 |",
    ]
    assert reasons.lines() == ["1. *method* needs a log, but *strategy* has none"]


def test_a_method_has_a_sign_for_each_kind_of_request_unless_all_are_equal() -> None:
    column = {**cells("fedavg", ("subtract",), tuple(REQUESTS)), ("subtract", "client"): WORKS}
    rows = matrix.table({"fedavg": column}, "regression", matrix.Reasons())
    assert "| `subtract` | + 1 1 |" in rows
    assert rows[-1].endswith("| + |")


def test_tasks_with_equal_tables_share_one() -> None:
    one, other = {"fedavg": cells("fedavg", ())}, {"fedavg": cells("fedavg", ("subtract",))}
    text = matrix.page({"Strategies": {"classification": one, "regression": other, "own": one}})
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# What goes with what",
        "## Strategies",
        "### classification, own",
        "### regression",
        "## Reasons",
    ]


def test_what_failed_is_named_and_a_page_that_differs_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"Strategies": {"regression": {"fedavg": cells("fedavg", ())}}}
    monkeypatch.setattr(matrix, "measured", lambda: found)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    assert (matrix.main([]), matrix.main(["--check"])) == (0, 0)
    found["Strategies"]["regression"]["fedavg"] = {("subtract", "client"): f"{FAILED}ValueError: no"}
    monkeypatch.setattr(matrix, "METHODS", ["subtract"])
    assert matrix.main(["--check"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "regression, fedavg, subtract, client: FAILED: ValueError: no",
        "docs/matrix.md: stale; run make generate",
    ]


def test_a_refusal_that_left_something_and_every_other_error_is_a_failure(tmp_path: Path) -> None:
    runs = Runs(tmp_path, "")

    def refuse(after: str = "") -> None:
        (tmp_path / after).write_text("x") if after else None
        raise BadInput("key: given 1, allowed 2")

    def fail() -> None:
        raise ValueError("no")

    assert runs._outcome(refuse) == "key: given 1, allowed 2"
    assert (
        runs._outcome(lambda: refuse("x"))
        == "FAILED: refused and left something behind: key: given 1, allowed 2"
    )
    assert runs._outcome(fail) == "FAILED: ValueError: no"


def test_a_refusal_after_work_of_clients_is_a_failure(tmp_path: Path) -> None:
    runs = Runs(tmp_path, "")
    runs._grid = matrix_runs.InlineGrid(matrix_runs.RunConfig().with_overrides(["data.clients=2"]))

    def refuse(kind: str) -> None:
        assert runs._grid is not None
        runs._grid.asked[kind] += 1
        raise BadInput("no")

    assert runs._outcome(lambda: refuse("query.holdings")) == "no"
    assert runs._outcome(lambda: refuse("train")) == "FAILED: refused after ['train']: no"


def test_what_clients_are_asked_is_counted(tmp_path: Path) -> None:
    """A round asks all three, a method that visits nobody none, and an epoch of the rest the two others."""
    runs = Runs(tmp_path, strategies()["fedavg"])
    with using(named(matrix_runs.project_of("regression"))):
        assert runs.train() == WORKS
        assert runs._grid is not None
        assert runs._grid.asked["train"] == 3
        assert runs.forget(REQUESTS["client"], "subtract") == WORKS
        assert not runs._grid.asked
        assert runs.forget(REQUESTS["client"], "finetune") == WORKS
        assert runs._grid.asked["train.finetune"] == 2


def test_a_column_of_real_runs() -> None:
    """With coded-gd only retraining forgets, and only clients."""
    found = outcomes("regression", strategies()["coded-gd"], ["client", "examples"])
    assert found["retrain", "client"] == WORKS
    assert found["finetune", "client"].startswith("finetune does not apply to coded-gd: every message mixes")
    assert found["retrain", "examples"].startswith("coded-gd does not serve a sample request")
    assert [cell for cell, outcome in found.items() if outcome == WORKS] == [("retrain", "client")]


def test_the_page_names_all_that_there_is() -> None:
    assert set(TASKS) == set(choice._BUILDERS)
    assert all(any(traits.owns(name) for name in strategies()) for traits in registry.all_traits())
    text = (ROOT / matrix.PAGE).read_text(encoding="utf-8")
    for name in (*strategies(), *METHODS, *options()):
        assert f"`{name}`" in text
    for task in TASKS:
        assert text.count(f"{task}") >= len(matrix.parts())
    assert FAILED.strip() not in text


@pytest.mark.check
def test_the_page_is_what_running_it_all_gives() -> None:
    command = [sys.executable, "-m", "docs.matrix", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

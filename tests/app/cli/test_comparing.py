"""app/cli/comparing.py: what is compared reaches the workflow, and its document reaches the user."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.report import comparison_tables
from app.report.comparison_tables import RATES
from strategies.runs.folder import RunFolder
from tests.app.cli.conftest import Command, Workflows
from tests.app.report.run_folders import add_rounds, finish, new_run
from tests.app.report.test_comparison_tables import comparison
from unlearning.request import ForgetRequest
from unlearning.traits.rounds import RoundSettings


@pytest.fixture
def study(tmp_path: Path, workflows: Workflows, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Return a finished run whose comparison takes no time."""

    class ComparisonPlan(tuple[Any, ...]):
        """What was asked for."""

        def __new__(cls, *parts: object) -> "ComparisonPlan":
            return super().__new__(cls, parts)

    def compare(folder: RunFolder, plan: ComparisonPlan, seeds: int, observer: Any) -> dict[str, Any]:
        workflows.calls.append(("compare", plan, seeds))
        made = comparison(notes=["seed 0: the backdoor did not take"])
        return {
            **made,
            "forgettings": 1,
            "mia_counts": True,
            "decisions": {},
            "conclusions": ["a is closer."],
        }

    def standard_requests(folder: RunFolder) -> tuple[ForgetRequest, ...]:
        return ForgetRequest(clients=("3",)), ForgetRequest(clients=("5",))

    monkeypatch.setattr(workflows, "standard_requests", standard_requests, raising=False)
    monkeypatch.setattr(workflows, "ComparisonPlan", ComparisonPlan, raising=False)
    monkeypatch.setattr(workflows, "compare", compare, raising=False)
    folder = new_run(tmp_path)
    add_rounds(folder)
    finish(folder)
    return folder


def test_what_is_compared(lethe: Command, workflows: Workflows, study: RunFolder) -> None:
    arguments = ["--methods", "distill, finetune", "--seeds", "3", "--prune", "imp", "--no-relearn"]
    arguments += ["--forgettings", "2"]
    settings = ["--set", "audit.seeds=2", "--set", "forget.finetune.epochs=4"]
    assert lethe("compare", "study", "--client", "3", *arguments, *settings).status == 0
    ((_, plan, seeds),) = workflows.calls
    request, methods, forget, audit, relearn, forgettings = plan
    assert (request, methods, seeds) == (ForgetRequest(clients=("3",)), ("distill", "finetune"), 3)
    assert (forget.prune, audit.seeds, relearn, forgettings) == ("imp", 2, False, 2)
    assert forget.own("finetune", RoundSettings).epochs == 4


def test_without_options(lethe: Command, workflows: Workflows, study: RunFolder) -> None:
    lethe("compare", "study", "--class", "7")
    ((_, plan, seeds),) = workflows.calls
    assert (plan[0], plan[1], seeds) == (ForgetRequest(classes=(7,)), (), 1)
    assert (plan[2].prune, plan[4]) == ("none", True)


def test_as_json(lethe: Command, study: RunFolder) -> None:
    """Nothing but what was measured."""
    document = json.loads(lethe("compare", "study", "--client", "3", "--json").out)
    figures = ["before", "retrain", "methods", "decisions", "conclusions"]
    assert list(document) == ["request", "seeds", "forgettings", "mia_counts", *figures]
    assert document["methods"]["quick"]["disparity"] == {"mean": 1.0, "std": 0.25}


def test_without_a_request_the_standard_cases(lethe: Command, workflows: Workflows, study: RunFolder) -> None:
    """A poisoned client and an honest one, each a comparison of its own."""
    ended = lethe("compare", "study")
    assert [plan[0].clients for _, plan, _ in workflows.calls] == [("3",), ("5",)]
    assert sum(line.startswith("Client 3: 3 methods compared") for line in ended.out.splitlines()) == 2
    assert ended.out.count("report: ") == 1
    document = json.loads(lethe("compare", "study", "--json").out)
    assert [each["seeds"] for each in document["comparisons"]] == [[0, 1, 2]] * 2


def test_in_words(lethe: Command, study: RunFolder) -> None:
    lines = lethe("compare", "study", "--client", "3").out.splitlines()
    assert lines[0].startswith("Client 3: 3 methods compared in run study. Mean ± standard deviation over 3")
    assert lines[2].split()[:6] == ["model", "disparity", "of", "nothing", "less", "nothing"]
    assert [line.split()[0] for line in lines[3:8]] == ["before", "retrained", "quick", "slow", "failed"]
    assert lines[-3] == "a is closer."
    assert lines[-2] == "note: seed 0: the backdoor did not take"
    assert lines[-1] == f"report: {study.path / 'report.html'}"


def test_no_seed_at_all_is_refused(lethe: Command, study: RunFolder) -> None:
    ended = lethe("compare", "study", "--client", "3", "--seeds", "0")
    assert ended.status == 2
    assert "--seeds" in ended.err


def test_tables_of_realistic_figures_fit_80_columns() -> None:
    """The longest method's name, means with a deviation, gaps with an interval."""
    rates = {key: {"mean": 96.25, "std": 1.25} for key in RATES}
    gaps = {f"{key}_gap": {"mean": -12.5, "std": 1.0, "low": -14.75, "high": -10.25} for key in RATES}
    kinds = {f"{key}_{kind}": rates[key] for key in RATES[:2] for kind in ("poisoned", "clean")}
    costs = {"seconds": {"mean": 120.0}, "seconds_ratio": {"mean": 0.25}, "bytes_up": {"mean": 1.2e8}}
    far = {key: {"mean": 1.25, "std": 0.125} for key in ("output_distance_forget", "output_distance_test")}
    disparity = {"disparity": rates[RATES[0]], "disparity_ratio": {"mean": 0.125, "std": 0.01}}
    model = {**rates, **gaps, **kinds, **costs, **far, **disparity}
    document = comparison(before=model, retrain=model, methods={"random-labels": model})
    for table in comparison_tables.tables(document):
        columns = [["model", *(row[0] for row in table.rows)]]
        columns += [[name, *(row[1 + i] for row in table.rows)] for i, name in enumerate(table.columns)]
        assert sum(2 + max(map(len, column)) for column in columns) <= 82  # Nothing stands after the last

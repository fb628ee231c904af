"""The report's section on privacy."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from app.report.privacy_view import privacy_view
from app.report.reading import RunRecord, read_run
from strategies.layers.privacy.server import privacy_summary
from strategies.layers.privacy.settings import PrivacySettings
from strategies.runs.folder import RunFolder

SPENT: dict[str, Any] = {
    "epsilons": {"0": 1.5, "1": 0.75},
    "noise": {"0": 1.1, "1": 2.0},
    "refusals": {"2": [4, "its privacy budget is 0: it takes no part"]},
    "unreported": {"1": 2},
}


def record(folder: Path, **changes: Any) -> RunRecord:
    empty = read_run(RunFolder.create(folder, "made-up", "run.rounds = 2\n"))
    settings = PrivacySettings(unit="example", epsilon=2.0, budgets="2=0", **changes)
    summary = {"privacy": privacy_summary(settings, SPENT, ["0", "1", "2"])}
    rounds = tuple({"round": r, "epsilons": {"0": 0.75 * r, "1": 0.375 * r}} for r in (1, 2))
    return replace(empty, summary=summary, rounds=rounds)


def test_budgets_and_spending_of_every_client(tmp_path: Path) -> None:
    view = privacy_view(record(tmp_path))
    assert view is not None
    assert [(row.label, *row.cells[:3]) for row in view.table.rows] == [
        ("0", "2.00", "1.500", "1.100"),
        ("1", "2.00", "0.750", "2.000"),
        ("2", "0.00", "0.000", "–"),
    ]
    assert view.table.rows[1].cells[3] == "asked 2 times without an answer since: may have spent more"
    assert view.table.rows[2].cells[3] == "refused 4 rounds: its privacy budget is 0: it takes no part"
    assert "at most 81.8 % sure of it" in view.meaning  # e^1.5 / (1 + e^1.5)
    assert view.picture is not None
    assert "at most ε = 1.500, by client 0, after round 2" in view.picture.caption


def test_unit_delta_sampling_and_accountant_stand_with_it(tmp_path: Path) -> None:
    view = privacy_view(record(tmp_path, randomness="seeded"))
    assert view is not None
    for words in (
        "Unit: example",
        "δ = 1e-05",
        "Poisson sampling of examples",
        "accountant prv",
        "run's seed",
    ):
        assert words in view.words


def test_a_run_without_privacy_has_no_section(tmp_path: Path) -> None:
    assert privacy_view(replace(record(tmp_path), summary={})) is None

"""benchmarks/forgetting.py: audit reports of several seeds have the same rows."""

from typing import Any

from benchmarks.forgetting import FIGURES, METHODS, table_of


def report(seed: int, seconds: float) -> dict[str, Any]:
    """Return an audit report with a retraining by the seed after the run's own."""
    names = ("before", "retrain", *METHODS, f"retrain-seed-{seed + 1}")
    models = {name: {**dict.fromkeys(FIGURES, 50.0), "seconds": seconds} for name in names}
    models["retrain"]["seconds"] = 10 * seconds
    disparities = {"disparity": 1.0, "disparity_without_mia": 0.5}
    return {"models": models, "comparisons": dict.fromkeys(METHODS, disparities)}


def test_retraining_with_another_seed_has_the_same_row_whatever_the_seed() -> None:
    rows = ["before", "retrain", *METHODS, "retrain-other-seed"]
    assert [list(table_of(report(seed, 1.0))) for seed in (0, 1)] == [rows, rows]


def test_times_faster_by_hand() -> None:
    """Retraining takes 20 seconds and a method 2."""
    row = table_of(report(0, 2.0))["distill"]
    assert (row["times_faster"], row["disparity"], row["disparity_without_mia"]) == (10.0, 1.0, 0.5)

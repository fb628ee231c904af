"""benchmarks/fedmd.py, small: every case parses, and a run's figures fit each other."""

import pytest

from app.config.run_config import RunConfig
from benchmarks.fedmd import CASES, _one

SMALL = (
    "strategy.name=fedmd",
    "strategy.models=mlp-8",
    "strategy.public-epochs=2",
    "strategy.private-epochs=2",
    "strategy.revisit-batch-size=32",
    "strategy.upper-bound=true",
    "data.clients=4",
    "data.per-class=3",
    "data.public=0.4",
    "strategy.alignment=500",
    "data.test-limit=50",
    "run.rounds=2",
    "run.workers=1",
)


@pytest.mark.parametrize("case", CASES)
def test_every_case_is_a_config(case: str) -> None:
    place = [] if case.startswith("digits") else ["data.name=cifar10", "data.public=cifar10"]
    keys = ["strategy.name=fedmd", "data.public-labels=own", *CASES[case], *place]
    assert RunConfig().with_overrides(keys).data.public_labels == "own"


def test_figures_fit_each_other() -> None:
    figures = _one(SMALL, True)
    assert figures["gain"] == pytest.approx(figures["accuracy"] - figures["baseline"])
    assert figures["gap_to_bound"] == pytest.approx(figures["bound"] - figures["accuracy"])
    assert figures["upload_per_client_round"] >= 500 * 10 * 4
    assert 0 < figures["upload_overhead_percent"] <= 2
    for start in ("transferred", "now"):
        assert figures[f"{start}_disparity"] >= 0
        assert figures[f"{start}_times_faster"] > 0

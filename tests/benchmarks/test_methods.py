"""The benchmark of all methods: its rows say what a comparison says, and it runs at a tiny size."""

from typing import Any

import pytest

from benchmarks import methods
from strategies.errors import BadInput


def spread(mean: float | None, std: float | None = None) -> dict[str, float | None]:
    return {"mean": mean, "std": std}


def test_rows_hold_every_rate_with_its_gap_and_the_speed() -> None:
    """A method that took a fifth of retraining's time is five times faster; one that failed has no figure."""
    figures = {
        "unlearning_accuracy": spread(40.0, 1.0),
        "unlearning_accuracy_gap": spread(-2.0, 0.5),
        "disparity": spread(0.5),
        "seconds_ratio": spread(0.2),
    }
    document = {"before": {}, "retrain": figures, "methods": {"distill": figures, "failed": {}}}
    rows = {row["model"]: row for row in methods.rows(document)}
    assert list(rows) == ["before", "retrain", "distill", "failed"]
    assert rows["distill"]["UA"] == spread(40.0, 1.0)
    assert rows["distill"]["UA gap"] == spread(-2.0, 0.5)
    assert rows["distill"]["times faster"] == 5.0
    assert rows["failed"]["disparity"] is rows["failed"]["times faster"] is None


def test_an_unknown_partition_is_refused() -> None:
    with pytest.raises(BadInput, match=r"unknown partition 'shards'; known partitions: iid, dirichlet-0\.5"):
        methods.run(partitions="shards")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return methods.run(
        data_name="digits",
        train_examples=200,
        rounds=2,
        seeds=1,
        methods="subtract,distill",
        partitions="iid",
        sequence="3,1",
        overrides="data.clients=4 data.test-limit=100 data.public=0.1 model.name=mlp model.hidden=16 "
        "run.workers=1",
    )


def test_end_to_end(measured: dict[str, Any]) -> None:
    assert list(measured) == ["machine", "settings", "iid, dense", "iid, 95 % sparse", "one after another"]
    for title in ("iid, dense", "iid, 95 % sparse"):
        rows = {row["model"]: row for row in measured[title]}
        assert list(rows) == ["before", "retrain", "subtract", "distill"]
        assert rows["retrain"]["disparity"]["mean"] == 0.0
        assert rows["subtract"]["visits"]["mean"] == 0
        assert rows["retrain"]["visits"]["mean"] == 6  # three clients in two rounds


def test_the_first_of_a_sequence_is_a_request_alone(measured: dict[str, Any]) -> None:
    steps = measured["one after another"]
    assert [(step["step"], step["client"]) for step in steps] == [(1, "3"), (2, "1")]
    assert steps[0]["after others"] == steps[0]["alone"]
    assert steps[1]["after others"] != steps[1]["alone"]

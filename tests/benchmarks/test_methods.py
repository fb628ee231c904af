"""The benchmark of all methods: its rows say what a comparison says, and it runs at a tiny size."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import BENCHMARKS, methods
from benchmarks.sequence import sequence_rows
from strategies.core.errors import BadInput


def spread(mean: float | None, std: float | None = None) -> dict[str, float | None]:
    return {"mean": mean, "std": std}


def test_rows_hold_every_rate_with_its_gap_and_the_speed() -> None:
    """A method that took a fifth of retraining's time is five times faster; one that failed has no figure."""
    figures = {
        "unlearning_accuracy": spread(40.0),
        "unlearning_accuracy_gap": spread(-2.0),
        "disparity": spread(0.5),
        "seconds_ratio": spread(0.2),
    }
    document = {"before": {}, "retrain": figures, "methods": {"distill": figures, "failed": {}}}
    rows = {row["model"]: row for row in methods.rows([document])}
    assert list(rows) == ["before", "retrain", "distill", "failed"]
    assert rows["distill"]["UA"] == spread(40.0)
    assert rows["distill"]["UA gap"] == spread(-2.0)
    assert rows["distill"]["times faster"] == spread(5.0)
    assert rows["failed"]["disparity"] == rows["failed"]["times faster"] == spread(None)


def test_several_seeds_make_one_row() -> None:
    """Five and three times faster: 4 on average, with a sample variance of 2; a failure does not count."""
    documents = [
        {"before": {}, "retrain": {}, "methods": {"ascent": {"seconds_ratio": spread(1 / times)}}}
        for times in (5.0, 3.0)
    ]
    documents.append({"before": {}, "retrain": {}, "methods": {"ascent": {}}})
    row = next(row for row in methods.rows(documents) if row["model"] == "ascent")
    assert row["times faster"] == {"mean": pytest.approx(4.0), "std": pytest.approx(2**0.5)}


def test_an_unknown_partition_is_refused() -> None:
    with pytest.raises(BadInput, match=r"unknown partition 'shards'; known partitions: iid, dirichlet-0\.5"):
        BENCHMARKS["methods"](partitions="shards")


TINY: dict[str, Any] = {
    "data_name": "digits",
    "train_examples": 200,
    "rounds": 2,
    "seeds": 1,
    "methods": "subtract,distill",
    "partitions": "iid",
    "sequence": "3,1",
    "overrides": "data.clients=4 data.test-limit=100 data.public=0.1 model.name=mlp model.hidden=16 "
    "run.workers=1",
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def measured(kept: Path) -> dict[str, Any]:
    BENCHMARKS["methods"](**TINY, keep=str(kept), sparsities="0")
    return BENCHMARKS["methods"](**TINY, keep=str(kept))


def test_what_is_kept_is_not_measured_again(
    measured: dict[str, Any], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "train", None)
    monkeypatch.setattr(methods, "compare", None)
    again = BENCHMARKS["methods"](**TINY, keep=str(kept))
    assert {title: again[title] for title in again if title != "settings"} == {
        title: measured[title] for title in measured if title != "settings"
    }


def test_what_was_kept_with_other_settings_is_refused(measured: dict[str, Any], kept: Path) -> None:
    with pytest.raises(BadInput, match=r"keep: .* with methods='subtract,distill', got 'subtract'; give ano"):
        BENCHMARKS["methods"](**{**TINY, "methods": "subtract"}, keep=str(kept))


def test_end_to_end(measured: dict[str, Any]) -> None:
    assert list(measured) == ["machine", "settings", "iid, dense", "iid, 95 % sparse", "one after another"]
    for title in ("iid, dense", "iid, 95 % sparse"):
        rows = {row["model"]: row for row in measured[title]}
        assert list(rows) == ["before", "retrain", "subtract", "distill", "retrain-other-seed"]
        assert rows["retrain"]["disparity"]["mean"] == 0.0
        assert rows["subtract"]["visits"]["mean"] == 0
        assert rows["retrain"]["visits"]["mean"] == 6  # three clients in two rounds


def test_the_first_of_a_sequence_is_a_request_alone(measured: dict[str, Any]) -> None:
    steps = measured["one after another"]
    assert [(step["step"], step["client"]) for step in steps] == [(1, "3"), (2, "1")]
    assert steps[0]["after others"] == steps[0]["alone"]
    assert steps[1]["after others"] != steps[1]["alone"]


def test_a_sequence_over_seeds() -> None:
    """Gaps of 1 and 3 points are 2 on average, and the seeds have the client in common."""
    seeds = [[{"client": "3", "after_others": each, "alone": 1.0}] for each in (1.0, 3.0)]
    (row,) = sequence_rows(seeds)
    assert (row["step"], row["client"]) == (1, "3")
    assert row["after others"] == {"mean": 2.0, "std": 2**0.5}
    assert row["alone"] == {"mean": 1.0, "std": 0.0}

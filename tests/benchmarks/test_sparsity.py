"""benchmarks/sparsity.py: pieces that are kept, differences paired by seed, and what a sign needs."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import BENCHMARKS, sparsity
from benchmarks.central import Holder
from benchmarks.central_methods import CONTENDERS
from benchmarks.figures import Interval, paired
from strategies.core.errors import BadInput
from strategies.runs.files import read_json, write_json
from unlearning.central.training import trained
from unlearning.student_t import quantile

TINY = {
    "data_name": "digits",
    "train_examples": 100,
    "test_examples": 60,
    "epochs": 1,
    "forget_epochs": 1,
    "curvature_examples": 8,
    "overrides": "model.hidden=8",
}
MODELS = [sparsity.BEFORE, sparsity.RETRAIN, sparsity.FLOOR, *CONTENDERS]


def piece(ours: float, margin: float) -> sparsity.Piece:
    """Return a piece of one request, with a UA of θo and of one method; retraining's is 100."""

    def row(ua: float, value: float) -> dict[str, Any]:
        return {"UA": ua, "MIA": 0.0, "RA": 0.0, "TA": 0.0, "seconds": 1.0, "margins": [value, value + 1]}

    return {
        "a class": {
            "before": row(0.0, 9.0),
            "retrain": row(100.0, margin),
            "retrain again": row(98.0, margin),
            "GA": row(100.0 - 4 * ours, margin),
        }
    }


def test_tables_by_hand() -> None:
    """Disparities of GA 2, 4 dense and 1, 3 sparse: the effect is −1 for both seeds, so it is decided."""
    values = {(0, 0.0): 2.0, (1, 0.0): 4.0, (0, 0.9): 1.0, (1, 0.9): 3.0}
    found = sparsity.tables({key: piece(value, 0.0) for key, value in values.items()})
    rows = {(row["model"], row["sparsity"]): row for row in found["models"]}
    assert rows["GA", 0.0]["by seed"] == [2.0, 4.0]
    assert rows["GA", 0.0]["disparity"]["mean"] == 3.0
    assert rows["GA", 0.0]["less nothing"]["mean"] == 3.0 - 25.0
    assert rows["GA", 0.9]["less floor"]["mean"] == 2.0 - 0.5
    effects = {row["model"]: row["effect"] for row in found["effects"]}
    assert effects["GA"]["mean"] == -1.0
    assert effects["GA"]["decided"] == "better"
    assert effects["before"]["decided"] == "not decided"
    assert found["shadows"] == []


@pytest.mark.parametrize(
    ("low", "high", "decided"),
    [(-2.0, -0.1, "better"), (0.1, 2.0, "worse"), (-1.0, 1.0, "not decided"), (None, None, "not decided")],
)
def test_a_sign_is_decided_where_the_interval_leaves_out_nothing(
    low: float | None, high: float | None, decided: str
) -> None:
    assert sparsity.claim(Interval(0.0, low, high, 3))["decided"] == decided


def test_an_interval_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, standard deviation 1, t of two degrees 4.303: 2 ± 4.303 / √3."""
    found = paired({0: 2.0, 1: 4.0, 2: 6.0, 3: 9.0}, {0: 1.0, 1: 2.0, 2: 3.0})
    assert (found.mean, found.count) == (2.0, 3)
    assert (found.low, found.high) == (pytest.approx(2 - 4.303 / 3**0.5), pytest.approx(2 + 4.303 / 3**0.5))
    assert quantile(14) > quantile(15) > quantile(10_000) > 1.959


def test_what_is_forgotten_is_the_same_for_all_seeds_and_hard_examples_are_mislabelled() -> None:
    options = sparsity.Options.of("sparsity", {**TINY, "hard_share": 0.1})
    holder = Holder.of(options, 0)
    worlds = sparsity.worlds(holder, options)
    hard = worlds[sparsity.HARD]
    assert len(hard.split.forget) == 10
    assert int((hard.train.y != holder.train.y).sum()) == 10
    for world in worlds.values():
        assert len(world.split.forget) + len(world.split.retain) == len(holder.train)
        assert len(world.held_out) == 30
        held = {tuple(row.flatten().tolist()) for row in world.held_out.x}
        assert not held & {tuple(row.flatten().tolist()) for row in world.split.test.x}
    assert torch.equal(sparsity.worlds(holder, options)[sparsity.HARD].train.y, hard.train.y)


def test_pieces_are_kept_and_reported(tmp_path: Path) -> None:
    """What is kept is not measured again, and every central method is in the tables."""
    options = {**TINY, "seeds": 1, "sparsities": "0.5", "keep": str(tmp_path)}
    found = BENCHMARKS["sparsity"](**options)
    assert {row["model"] for row in found["models"]} == set(MODELS)
    path = tmp_path / "seed 0, sparsity 0.5.json"
    kept = read_json(path)
    kept["measured"]["a class"]["GA"]["UA"] = 12.0
    write_json(path, kept)
    again = BENCHMARKS["sparsity"](**{**options, "kept_only": True, "seeds": 3})
    (row,) = [
        r for r in again["models"] if (r["request"], r["model"], r["sparsity"]) == ("a class", "GA", 0.5)
    ]
    assert row["UA"]["mean"] == 12.0


def test_a_retraining_begins_with_weights_that_have_not_seen_what_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """θo begins with the weights after an epoch on all 100 examples; both retrainings after one on 90."""
    seen = []

    def counting(model: Any, examples: Any, *others: Any) -> Any:
        seen.append(len(examples))
        return trained(model, examples, *others)

    monkeypatch.setattr(sparsity, "trained", counting)
    told = {**TINY, "requests": "random", "methods": "FT", "rewind_epochs": 1}
    piece = sparsity.measured(sparsity.Options.of("sparsity", told), 0, 0.5)
    assert seen == [100, 90, 90]
    assert set(piece["a random tenth"]) == {sparsity.BEFORE, sparsity.RETRAIN, sparsity.FLOOR, "FT"}
    sparsity.measured(sparsity.Options.of("sparsity", told), 0, 0.0)
    assert len(seen) == 3  # A dense model begins with its first weights


def test_shadows_are_further_seeds_at_some_sparsities() -> None:
    options = sparsity.Options(seeds=1, sparsities="0,0.5", shadows=2, shadowed="0")
    assert sparsity.planned(options) == [(0, 0.0), (0, 0.5), (1, 0.0)]


def test_a_sparsity_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match="sparsities: given 1, allowed shares from 0 to below 1"):
        BENCHMARKS["sparsity"](sparsities="0,1")


def test_without_a_piece_there_is_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no piece"):
        BENCHMARKS["sparsity"](**TINY, keep=str(tmp_path), kept_only=True)

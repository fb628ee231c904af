"""The benchmark of the default method: its rule by hand, its cases, and a tiny run that is kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.client.node import Node
from app.config.run_config import RunConfig
from app.data import load_client_data
from app.workflows import shadows, train
from app.workflows.observer import Observer
from benchmarks import BENCHMARKS, default
from benchmarks.default import CASES, Contender, marked
from benchmarks.default_rows import Measured, row, rule
from benchmarks.inline import InlineGrid
from strategies.core.errors import BadInput
from strategies.core.examples import in_memory
from strategies.core.settings import Scalar
from strategies.runs.folder import RunFolder
from unlearning.audit.margins import Margins
from unlearning.settings import ForgetSettings


def told(model: str, distance: float, faster: float, gap: float, outcome: str = "fails") -> dict[str, Any]:
    return {"model": model, "distance": distance, "times faster": faster, "TA gap": gap, "outcome": outcome}


def test_the_rule_takes_the_least_worst_distance_of_those_that_are_fast_and_good() -> None:
    """By hand: `b` is worst at 0.3 in one case, `c` at 0.2, `slow` and `bad` are out, `half` failed."""
    tables = {
        "plain": [
            told("before", 0.0, 1.0, 0.0),
            told("b", 0.01, 50, 0.0, "passes"),
            told("c", 0.2, 21, -1.0, "passes"),
            told("slow", 0.0, 19, 0.0),
            told("bad", 0.0, 90, -1.1),
            told("half", 0.0, 90, 0.0),
        ],
        "hard": [
            told("before", 0.4, 1.0, 0.0),
            told("b", 0.3, 50, 0.0),
            told("c", 0.1, 20, 0.2, "passes"),
            told("slow", 0.05, 19, 0.0),
            told("bad", 0.0, 90, -1.1),
            {"model": "half", "failed": "no log"},
        ],
    }
    assert rule(tables, speed=20, price=1) == {
        "nearest": "c",
        "distance": 0.2,
        "passes in all cases": "c",
        "nearest at any speed and price": "bad",
    }
    assert rule(tables, speed=1000, price=1)["nearest"] is None


def measured(
    generator: np.random.Generator, known: float, accuracy: float, success: float | None = None
) -> Measured:
    values = np.concatenate([np.full(10, known), np.zeros(20)]) + generator.normal(size=30)
    margins = Margins({"3": values}, generator.normal(size=5), generator.normal(size=6), {"3": np.arange(30)})
    return Measured.of(Measured(1.0, accuracy, margins, success).to_json())


def test_a_row_looks_at_marked_examples_by_themselves() -> None:
    """It loses 1 and 2 points in turn, 1.5 in the mean."""
    generator = np.random.default_rng(0)
    models: list[dict[str, Measured | str]] = [
        {
            "before": measured(generator, 6.0, 90.0),
            "retrain": measured(generator, 0.0, 90.0),
            "some": measured(generator, 6.0, 89.0 - k % 2),
        }
        for k in range(10)
    ]
    found = row("some", [pair["some"] for pair in models], models, torch.arange(10), 0, 4.0)
    assert (found["times faster"], found["TA gap"]) == (4.0, -1.5)
    assert found["distance"] == pytest.approx(max(abs(v - 0.5) for v in found["AUC"][1:]), abs=1e-3)
    assert found["outcome"] == "fails"
    assert found["marked AUC"][0] > 0.9
    assert found["unmarked AUC"][0] < 0.6
    assert row("gone", ["no log"] * 10, models, torch.zeros(0), 0, 1.0) == {
        "model": "gone",
        "failed": "no log",
    }


def test_a_row_has_the_backdoor_beside_retraining_s_where_there_is_one() -> None:
    """Gaps of 2, 4 and 6 points: 4 ± 4.303 · 2 / √3, by Student's distribution of two degrees."""
    generator = np.random.default_rng(0)
    models: list[dict[str, Measured | str]] = [
        {
            "before": measured(generator, 6.0, 90.0, 99.0),
            "retrain": measured(generator, 0.0, 90.0, 1.0),
            "some": measured(generator, 1.0, 90.0, 3.0 + 2 * k),
        }
        for k in range(3)
    ]
    found = row("some", [pair["some"] for pair in models], models, torch.zeros(0), 0, 4.0)
    assert (found["ASR"], found["ASR gap"], found["ASR gap ±"]) == (5.0, 4.0, 4.97)
    plain = row("some", [measured(generator, 1.0, 90.0) for _ in range(3)], models, torch.zeros(0), 0, 4.0)
    assert "ASR" not in plain


@pytest.mark.parametrize(("case", "count"), [("plain", 0), ("hard", 30), ("poisoned", 104)])
def test_marked_are_the_examples_that_the_client_trains_on_altered(case: str, count: int) -> None:
    """Of 130, 80 % are poisoned; each other example is as the data set has it."""
    keys = ["data.clients=10", "run.seed=0"]
    place: dict[str, Scalar] = {"partition-id": 3, "num-partitions": 10}
    plain, config = (RunConfig().with_overrides([*keys, *own]) for own in ((), CASES[case]))
    own = Node(config, place, {}).training_examples()
    before = in_memory(load_client_data(plain.data, plain.data_seed, place))
    changed = (in_memory(own).x != before.x).flatten(1).any(dim=1) | (in_memory(own).y != before.y)
    assert changed.nonzero().flatten().equal(marked(config))
    assert len(marked(config)) == count


def test_a_contender_may_bring_keys_of_its_own() -> None:
    settings = ForgetSettings.of("finetune", epochs=7)
    own = Contender.of("finetune:epochs=1:learning-rate=0.5", settings)
    assert own.settings == ForgetSettings.of("finetune", epochs=1, learning_rate=0.5)
    assert Contender.of("subtract", settings).settings.given == settings.given
    with pytest.raises(BadInput, match="unknown method 'nope'"):
        Contender.of("nope", settings)


def test_a_tiny_run_is_kept_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients work in this process here, as to start others takes longer than all the rest."""

    def train_here(config: RunConfig, observer: Observer, grid: None = None, **_: bool) -> RunFolder:
        return train(config, observer, InlineGrid(config))

    monkeypatch.setattr(default, "train", train_here)
    monkeypatch.setattr(shadows, "train", train_here)
    tiny = {
        "pairs": 3,
        "cases": "plain",
        "keep": str(tmp_path),
        "overrides": "data.train-limit=200 run.rounds=1 model.name=mlp model.hidden=8 train.local-epochs=1 "
        f"run.certificate-key={tmp_path / 'key.pem'}",
    }
    first = BENCHMARKS["default"](methods="subtract", **tiny)
    monkeypatch.setattr(default, "trained_with", None)
    monkeypatch.setattr(default.forgetting, "forget", None)
    again = BENCHMARKS["default"](methods="subtract", **tiny)
    assert again["plain"] == first["plain"]
    assert [each["model"] for each in first["plain"]] == ["before", "subtract"]
    assert first["rule"]["nearest at any speed and price"] == "subtract"
    with pytest.raises(BadInput, match=r"keep: .* holds measurements with keys="):
        BENCHMARKS["default"](methods="subtract", **{**tiny, "overrides": ""})

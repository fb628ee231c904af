"""The benchmark of trainings side by side: both ways train the same models, on halves of the digits."""

import torch

from app.workflows.observer import Quiet
from benchmarks.seeds import Options, half_of, run
from strategies.core.examples import TensorExamples


def test_both_ways_train_the_same_models() -> None:
    found = run(Options(trainings=3, epochs=1, repeats=1), Quiet())
    assert 0 < found["difference"] < 1e-4
    assert found["one-by-one"]["accuracies"] == found["side-by-side"]["accuracies"]
    assert len(set(found["one-by-one"]["accuracies"])) == 3
    assert found["ratio"] > 0
    ways = found["side-by-side"], found["one-by-one"]
    assert found["processor-ratio"] == round(ways[0]["processor-seconds"] / ways[1]["processor-seconds"], 3)


def test_each_seed_has_a_half_of_its_own() -> None:
    digits = TensorExamples(torch.zeros(9, 1), torch.zeros(9, dtype=torch.int64))
    halves = [half_of(digits, seed) for seed in range(2)]
    assert [int(half.sum()) for half in halves] == [4, 4]
    assert not halves[0].equal(halves[1])

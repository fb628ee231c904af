"""The benchmark of privacy, small: each part but the accuracy, which needs MNIST."""

import pytest

from benchmarks import BENCHMARKS
from strategies.core.errors import BadInput


def test_every_part_measures() -> None:
    result = BENCHMARKS["privacy"](parts="bytes,epsilon,steps", steps=1, batch_size=4)
    saved = {name: found["saved-percent"] for name, found in result["bytes"].items()}
    assert saved["cnn"] > 76.8
    assert saved["resnet18"] > 76.8
    assert saved["mlp"] < 76.8  # most of it reads the input, which stays whole
    assert abs(result["epsilon"]["difference-percent"]) < 1
    assert result["epsilon"]["prv"] <= result["epsilon"]["rdp"]
    steps = result["steps"]
    assert set(steps["cnn"]["milliseconds"]) == {"plain", *steps["cnn"]["to plain"]}
    assert set(steps["cnn"]["to plain"]) >= {"one pass", "ghost", "hooks", "one pass, keep 0.5"}
    assert set(steps["transformer"]["to plain"]) == {"auto", "ghost", "hooks"}


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown part 'time'; parts are steps, bytes, epsilon, accuracy"):
        BENCHMARKS["privacy"](parts="time")

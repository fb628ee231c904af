"""The benchmark of privacy, small: each part but the accuracy, which needs MNIST."""

import pytest

from benchmarks import BENCHMARKS
from strategies.errors import BadInput


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_every_part_measures() -> None:
    result = BENCHMARKS["privacy"](parts="bytes,epsilon,steps", steps=1, batch_size=4)
    assert result["bytes"]["cnn"]["saved-percent"] > 76.8
    assert abs(result["epsilon"]["difference-percent"]) < 1
    assert result["epsilon"]["prv"] <= result["epsilon"]["rdp"]
    assert set(result["steps"]["milliseconds"]) >= {
        "plain",
        "hooks",
        "two-pass ghost",
        "private",
        "private, keep 0.5",
    }


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown part 'time'; parts are steps, bytes, epsilon, accuracy"):
        BENCHMARKS["privacy"](parts="time")

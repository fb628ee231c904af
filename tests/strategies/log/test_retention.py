"""What is kept, by name."""

import pytest

from strategies.core.errors import BadInput
from strategies.log.retention import Retention, check_dtype


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("full", [1, 2, 3, 4, 5, 6, 7]),
        ("interval:1", [1, 2, 3, 4, 5, 6, 7]),
        ("interval:2", [1, 3, 5, 7]),
        ("interval:100", [1]),
        ("sum", []),
    ],
)
def test_the_first_round_is_kept_and_then_every_kth(text: str, kept: list[int]) -> None:
    retention = Retention.parse(text)
    assert [t for t in range(1, 8) if retention.keeps(t)] == kept
    assert str(retention) == text


@pytest.mark.parametrize(
    "text", ["", "Full", "interval", "interval:", "interval:0", "interval:-1", "interval:1.5"]
)
def test_other_retentions_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match=rf"log\.retention: got '{text}', expected full, sum or interval:<k>"):
        Retention.parse(text)


def test_precisions_by_name() -> None:
    full = Retention.parse("full")
    assert check_dtype(full, "bfloat16") == "bfloat16"
    with pytest.raises(BadInput, match=r"log\.dtype: got 'int8', expected float32, float16, bfloat16"):
        check_dtype(full, "int8")
    with pytest.raises(BadInput, match="sums are kept in float32"):
        check_dtype(Retention.parse("sum"), "bfloat16")

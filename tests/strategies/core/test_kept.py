"""What a function has returned is kept within bytes, not by number."""

import torch

from strategies.core.dataset_examples import DatasetExamples, StoredParts
from strategies.core.examples import TensorExamples
from strategies.core.kept import ENTRY_BYTES, kept_within


def _kept(most: int) -> tuple[list[int], object]:
    """Return the calls so far, and a function that returns as many bytes as its argument says."""
    calls: list[int] = []

    @kept_within(most, len)
    def made(size: int, *, fill: bytes = b"a") -> bytes:
        calls.append(size)
        return fill * size

    return calls, made


def test_many_small_results_or_few_large_ones_are_kept() -> None:
    """Ten entries of 1,000 bytes fit where two of 10,000 do not."""
    calls, made = _kept(10 * (1_000 + ENTRY_BYTES))
    assert callable(made)
    for size in (*range(991, 1_001), *range(991, 1_001)):
        assert len(made(size)) == size
    assert len(calls) == 10
    made(15_000)
    made(15_001)
    made(15_000)
    assert calls[10:] == [15_000, 15_001, 15_000]


def test_what_was_asked_for_last_stays() -> None:
    calls, made = _kept(2 * (10 + ENTRY_BYTES))
    assert callable(made)
    for size in (10, 9, 10, 8, 10, 9):
        made(size)
    assert calls == [10, 9, 8, 9]


def test_what_does_not_fit_is_not_kept() -> None:
    calls, made = _kept(100)
    assert callable(made)
    assert made(10) == made(10)
    assert calls == [10, 10]


def test_named_arguments_count() -> None:
    calls, made = _kept(10_000)
    assert callable(made)
    assert [made(2), made(2, fill=b"b"), made(2, fill=b"b")] == [b"aa", b"bb", b"bb"]
    assert calls == [2, 2]


def test_the_bytes_of_examples() -> None:
    """Ten float32 inputs of three numbers and their labels; half of a source counts half of its bytes."""
    x, y = torch.zeros(10, 3), torch.zeros(10, dtype=torch.long)
    assert TensorExamples(x, y).held_bytes == 10 * (3 * 4 + 8)
    stored = StoredParts({"a": x}, y)
    assert DatasetExamples(stored, torch.arange(5)).held_bytes == 5 * 8 + 5 * 3 * 4


def test_all_that_is_kept_can_be_forgotten() -> None:
    calls: list[int] = []

    @kept_within(10 * ENTRY_BYTES, lambda found: found)
    def once(number: int) -> int:
        calls.append(number)
        return number

    once(1)
    once.cache_clear()
    once(1)
    assert calls == [1, 1]

"""Operations counted, not seconds: bytecodes that Python executes, those of counting types included."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIZES = (150, 300, 600)
_MOST = 2.6
"""How many times the growth from n to 2n that from 2n to 4n may be: 2 is linear, 2.3 is n log n, 4 is n²."""


class CountedText(str):
    """A text whose comparisons and hashes are Python's own work, and so are counted."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        """Compare in a counted frame."""
        return str.__eq__(self, other)

    def __lt__(self, other: str) -> bool:
        """Compare in a counted frame."""
        return str.__lt__(self, other)

    def __hash__(self) -> int:
        """Hash in a counted frame."""
        return str.__hash__(self)


class CountedNumber(int):
    """A whole number whose additions and comparisons are counted."""

    def __eq__(self, other: object) -> bool:
        """Compare in a counted frame."""
        return int.__eq__(self, other)

    def __hash__(self) -> int:
        """Hash in a counted frame."""
        return int.__hash__(self)

    def __add__(self, other: int) -> "CountedNumber":
        """Add in a counted frame."""
        return CountedNumber(int(self) + int(other))

    def __radd__(self, other: int) -> "CountedNumber":
        """Add in a counted frame."""
        return CountedNumber(int(other) + int(self))


@contextmanager
def counted() -> Iterator[list[int]]:
    """Count the bytecodes that this thread executes in the block; the list holds the number afterwards."""
    total = [0]

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            total[0] += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield total
    finally:
        sys.settrace(before)


def operations(work: Callable[[], object]) -> int:
    """Return how many bytecodes a piece of work executes."""
    with counted() as total:
        work()
    return total[0]


def check_growth(prepare: Callable[[int], Callable[[], object]], sizes: tuple[int, int, int] = SIZES) -> None:
    """Fail if the work grows faster than n log n.

    Parameters
    ----------
    prepare
        Returns the work at a size; making it is not counted.
    """
    operations(prepare(sizes[0]))  # What is only done once is done before
    first, second, third = (operations(prepare(size)) for size in sizes)
    grown = (third - second) / max(1, second - first)
    assert grown <= _MOST, f"{first}, {second}, {third} operations at {sizes}: grows {grown:.2f} times"

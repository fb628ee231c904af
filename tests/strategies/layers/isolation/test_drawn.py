"""strategies/layers/isolation/drawn.py: the function and who feeds it take turns; its errors get out."""

from collections.abc import Iterable

import pytest

from strategies.layers.isolation.drawn import Fed


def test_what_is_given_is_drawn_before_give_returns() -> None:
    seen: list[int] = []

    def note(items: Iterable[int]) -> int:
        total = 0
        for item in items:
            seen.append(item)
            total += item
        return total

    fed = Fed(note)
    for number in (1, 2, 3):
        fed.give(number)
        assert seen[-1] == number
    assert fed.finish() == 6
    fed.abandon()


def test_a_function_that_stops_early_is_not_waited_for() -> None:
    fed: Fed[int, int] = Fed(lambda items: next(iter(items)))
    for number in (1, 2, 3):
        fed.give(number)
    assert fed.finish() == 1


def test_its_error_is_raised_where_its_result_is_asked_for() -> None:
    def fail(items: Iterable[int]) -> int:
        raise ValueError("no")

    fed = Fed(fail)
    fed.give(1)
    with pytest.raises(ValueError, match="no"):
        fed.finish()


def test_it_ends_when_it_is_abandoned() -> None:
    fed: Fed[int, int] = Fed(sum)
    fed.give(1)
    fed.abandon()
    assert not fed._thread.is_alive()

"""Functions that take turns: one at a time, each with its own numbers, and what they raise."""

import threading
from contextvars import ContextVar

import pytest
import torch

from strategies.core.seeds import seeded_layers, torch_generator
from strategies.core.turns import InTurn

_MARK: ContextVar[int] = ContextVar("mark", default=0)


def test_each_goes_on_where_it_paused_with_its_own_random_numbers_and_context() -> None:
    """Two functions and this one draw in turn; each draws as if it were alone."""
    drawn: dict[int, list[float]] = {0: [], 1: [], 2: []}

    def draw(number: int) -> None:
        drawn[number].append(float(torch.rand(1)))

    def drawing(number: int) -> InTurn:
        def work() -> None:
            _MARK.set(number)
            with seeded_layers(torch_generator(number, "turns")):
                for _ in range(3):
                    draw(_MARK.get())
                    turn.pause()

        turn = InTurn(work)
        return turn

    with seeded_layers(torch_generator(0, "turns")):
        turns = [drawing(1), drawing(2)]
        while not all(turn.ended for turn in turns):
            for turn in turns:
                turn.go_on()
            draw(_MARK.get())
    for seed, found in drawn.items():
        with seeded_layers(torch_generator(seed, "turns")):
            assert found == [float(torch.rand(1)) for _ in found]
    assert [len(found) for found in drawn.values()] == [4, 3, 3]


def test_what_it_raises_is_kept_and_it_has_ended() -> None:
    def fail() -> None:
        raise IndexError

    turn = InTurn(fail)
    assert not turn.begun
    turn.go_on()
    assert turn.begun
    assert turn.ended
    assert isinstance(turn.error, IndexError)


def test_one_that_was_left_while_it_ran_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an interruption in the thread that waits: it does not begin a second time."""
    goes_on, said = threading.Event(), list[str]()

    def work() -> None:
        said.append("begun")
        goes_on.wait(60)
        said.append("ended")

    turn = InTurn(work)
    acquire = turn._paused

    class Interrupted:
        def acquire(self) -> None:
            raise KeyboardInterrupt

        def release(self) -> None:
            acquire.release()

    monkeypatch.setattr(turn, "_paused", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        turn.go_on()
    monkeypatch.setattr(turn, "_paused", acquire)
    goes_on.set()
    turn.go_on()
    assert said == ["begun", "ended"]
    assert turn.ended

"""Works of many clients that go on together: what they train by `local_train` is one batched computation.

A work, such as a client's whole handling of a message, is a function that is written as if it were alone, and
runs in a thread of its own. Where it trains, it waits until all others have come to a training or to their
end; the trainings that wait are carried out at once (`strategies.client.stacked`), and each work goes on with
its own result. Only one thread runs at a time, so nothing is concurrent: the threads are there for their
stacks. The state of torch's global generators is each work's own.

A work that says itself where it trains needs no thread, which costs as much as some dozen small steps: it is
a generator that yields a `Request` and is sent the `Outcome` (see `strategies.client.pausing`).

Works in threads must not share what one of them changes, such as a model that serves whoever comes next: such
a model is kept once for each `seat`.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Generic, TypeVar, final

from strategies.client.pausing import Pausing
from strategies.client.stacked import Alone, Failed, Limits, Outcome, Trained, put_into, train_stacked
from strategies.client.stacked_data import Request
from strategies.client.training import HANDED_OVER, Training, TrainStats
from strategies.core.seeds import GlobalState
from strategies.core.turns import InTurn

T = TypeVar("T")

_SEAT: ContextVar[int] = ContextVar("seat", default=0)

OnTurn = Callable[[int | None], None]
"""Called with the number of the work that goes on now; None: all that wait do, in their trainings."""


def seat() -> int:
    """Return the present thread's number among those that go on together, from 1; 0 if it goes on alone."""
    return _SEAT.get()


@dataclass
class Report:
    """How many trainings were side by side, and why the others were not.

    Parameters
    ----------
    alone
        Reason -> number of trainings.
    silent
        Numbers of the works that never trained by `local_train`.
    """

    together: int = 0
    alone: Counter[str] = field(default_factory=Counter)
    silent: set[int] = field(default_factory=set)

    def note(self, outcome: Outcome) -> None:
        """Count a training."""
        if isinstance(outcome, Alone):
            self.alone[outcome.reason] += 1
        else:
            self.together += 1


def side_by_side(
    works: Sequence[Callable[[], T] | Pausing[T]],
    limits: Limits | None = None,
    on_turn: OnTurn = lambda number: None,
    report: Report | None = None,
) -> list[T]:
    """Return what works return, whose trainings are carried out side by side.

    Parameters
    ----------
    works
        Carried out in their order, one at a time: functions in threads of their own, generators in this one.
    report
        Where the trainings are counted.

    Raises
    ------
    BaseException
        What the first work that fails has raised, after all have ended.

    Examples
    --------
    ::

        models = side_by_side([partial(shadow_model, seed) for seed in range(16)])
    """
    counted = Report() if report is None else report
    begun = [_begun(work, number) for number, work in enumerate(works)]
    for number, work in enumerate(begun):
        on_turn(number)
        work.go_on()
    counted.silent.update(number for number, work in enumerate(begun) if not work.request)
    while waiting := [(i, work, work.request) for i, work in enumerate(begun) if work.request]:
        on_turn(None)
        outcomes = train_stacked([request for *_, request in waiting], limits)
        for (number, work, _), outcome in zip(waiting, outcomes, strict=True):
            counted.note(outcome)
            on_turn(number)
            work.go_on(outcome)
    return [work.result() for work in begun]


def _begun(work: Callable[[], T] | Pausing[T], number: int) -> "_Work[T]":
    return _Threaded(work, number) if callable(work) else _Stepwise(work)


class _Work(ABC, Generic[T]):
    """A work that stops at each of its trainings, which is its `request` then."""

    def __init__(self) -> None:
        self.request: Request | None = None
        self._returned: list[T] = []
        self._error: BaseException | None = None

    @abstractmethod
    def go_on(self, outcome: Outcome | None = None) -> None:
        """Run until the work comes to its next training, or to its end."""

    def result(self) -> T:
        """Return what the work returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._returned[0]


@final
class _Stepwise(_Work[T]):
    """A work that is a generator."""

    def __init__(self, steps: Pausing[T]) -> None:
        super().__init__()
        self._steps = steps

    def go_on(self, outcome: Outcome | None = None) -> None:
        """Run until the generator yields or ends."""
        self.request = None
        try:
            self.request = next(self._steps) if outcome is None else self._steps.send(outcome)
        except StopIteration as end:
            self._returned.append(end.value)
        except BaseException as error:  # noqa: BLE001 (raised again where the works were started)
            self._error = error


@final
class _Threaded(_Work[T]):
    """A work in a thread of its own, which runs only while `go_on` waits for it."""

    def __init__(self, work: Callable[[], T], number: int) -> None:
        super().__init__()
        self._work, self._number = work, number
        self._turn = InTurn(self._run)
        self._outcome: Outcome | None = None

    def go_on(self, outcome: Outcome | None = None) -> None:
        """Run until the thread waits or ends."""
        self._outcome, self.request = outcome, None
        self._turn.go_on()
        self._error = self._turn.error

    def _run(self) -> None:
        _SEAT.set(self._number + 1)
        HANDED_OVER.set(self._hand_over)
        self._returned.append(self._work())

    def _hand_over(self, training: Training) -> TrainStats:
        """Wait for the training to be carried out, or carry it out by itself."""
        now = GlobalState.now()
        self.request = Request(training, lambda: now)
        self._turn.pause()
        outcome = self._outcome
        if isinstance(outcome, Failed):
            raise outcome.error
        if not isinstance(outcome, Trained):
            return training.run()
        put_into(training.model, outcome)
        if outcome.layers is not None:
            outcome.layers.put_back()
        return outcome.stats

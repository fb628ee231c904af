"""Works of many clients that go on together: what they train by `local_train` is one batched computation.

Each work, such as a client's whole handling of a message, runs in a thread of its own and is written as if it
were alone. Where it trains, it waits until all others have come to a training or to their end; the trainings
that wait are carried out at once (`strategies.client.stacked`), and each work goes on with its own result.
Only one thread runs at a time, so nothing is concurrent: the threads are there for their stacks. The state of
torch's global generators is each work's own.

Works must not share what one of them changes, such as a model that serves whoever comes next: such a model is
kept once for each `seat`.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Generic, TypeVar, final

from strategies.client.stacked import Alone, Failed, Limits, Outcome, Trained, put_into, train_stacked
from strategies.client.stacked_data import Request
from strategies.client.training import HANDED_OVER, Training, TrainStats
from strategies.core.seeds import GlobalState

T = TypeVar("T")

_SEAT: ContextVar[int] = ContextVar("seat", default=0)

OnTurn = Callable[[int | None], None]
"""Called with the number of the work that goes on now; None: all that wait do, in their trainings."""


def seat() -> int:
    """Return the number of the present work among those that go on together; 0 if it goes on alone."""
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
    works: Sequence[Callable[[], T]],
    limits: Limits | None = None,
    on_turn: OnTurn = lambda number: None,
    report: Report | None = None,
) -> list[T]:
    """Return what works return, whose trainings are carried out side by side.

    Parameters
    ----------
    works
        Called in their order, each in a thread of its own, one at a time.
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
    threads = [_Work(work, number) for number, work in enumerate(works)]
    for number, thread in enumerate(threads):
        on_turn(number)
        thread.go_on()
    counted.silent.update(number for number, thread in enumerate(threads) if not thread.request)
    while waiting := [(i, thread, thread.request) for i, thread in enumerate(threads) if thread.request]:
        on_turn(None)
        outcomes = train_stacked([request for *_, request in waiting], limits)
        for (number, thread, _), outcome in zip(waiting, outcomes, strict=True):
            counted.note(outcome)
            on_turn(number)
            thread.go_on(outcome)
    return [thread.result() for thread in threads]


@final
class _Work(Generic[T]):
    """A work in a thread of its own, which runs only while `go_on` waits for it."""

    def __init__(self, work: Callable[[], T], number: int) -> None:
        self._work, self._number = work, number
        self._turn, self._paused = threading.Lock(), threading.Lock()
        self._turn.acquire()  # Released by one side and acquired by the other, each in turn
        self._paused.acquire()
        self._layers: GlobalState | None = None
        self._outcome: Outcome | None = None
        self._returned: list[T] = []
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self.request: Request | None = None

    def go_on(self, outcome: Outcome | None = None) -> None:
        """Run until the work comes to its next training, which is its `request` then, or to its end."""
        outer = GlobalState.now()
        if self._layers is not None:
            self._layers.put_back()
        self._outcome, self.request = outcome, None
        if self._thread is None:
            self._thread = threading.Thread(target=copy_context().run, args=(self._run,), daemon=True)
            self._thread.start()
        self._turn.release()
        self._paused.acquire()
        self._layers = GlobalState.now()
        outer.put_back()
        if self.request is None:
            self._thread.join()

    def result(self) -> T:
        """Return what the work returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._returned[0]

    def _run(self) -> None:
        self._turn.acquire()
        _SEAT.set(self._number)
        HANDED_OVER.set(self._hand_over)
        try:
            self._returned.append(self._work())
        except BaseException as error:  # noqa: BLE001 (raised again where the works were started)
            self._error = error
        finally:
            self._paused.release()

    def _hand_over(self, training: Training) -> TrainStats:
        """Wait for the training to be carried out, or carry it out by itself."""
        self.request = Request(training, GlobalState.now())
        self._paused.release()
        self._turn.acquire()
        outcome = self._outcome
        if isinstance(outcome, Failed):
            raise outcome.error
        if not isinstance(outcome, Trained):
            return training.run()
        put_into(training.model, outcome)
        outcome.layers.put_back()
        return outcome.stats

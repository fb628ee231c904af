"""A function that draws from an iterator, fed one item at a time by whoever has the items."""

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Fed(Generic[T, R]):
    """Run a function of an iterable in a thread of its own; the two take turns, so that nothing is at once.

    `give` returns when the function asks for the next item, or has ended. Every one that was begun must be
    finished or abandoned.

    Parameters
    ----------
    consume
        Draws items until there are no more, and returns something.
    """

    def __init__(self, consume: Callable[[Iterable[T]], R]) -> None:
        self._items: SimpleQueue[tuple[T] | None] = SimpleQueue()
        self._asks: SimpleQueue[None] = SimpleQueue()
        self._consume = consume
        self._results: list[R] = []
        self._error: BaseException | None = None
        self._over = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        self._asks.get()

    def give(self, item: T) -> None:
        """Hand over an item; one that comes after the function has ended is dropped."""
        if not self._over:
            self._items.put((item,))
            self._asks.get()

    def finish(self) -> R:
        """Say that there are no more items, and return what the function returns; raise what it raises."""
        self.abandon()
        if self._error is not None:
            raise self._error
        return self._results[0]

    def abandon(self) -> None:
        """Say that there are no more items, and wait for the function to end."""
        if self._thread.is_alive():
            self._items.put(None)
            self._thread.join()

    def _work(self) -> None:
        try:
            self._results.append(self._consume(self._drawn()))
        except BaseException as error:  # noqa: BLE001 (raised where the result is asked for)
            self._error = error
        self._over = True
        self._asks.put(None)

    def _drawn(self) -> Iterator[T]:
        while True:
            self._asks.put(None)
            item = self._items.get()
            if item is None:
                return
            yield item[0]

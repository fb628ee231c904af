"""Work that goes on beside the caller, a little of it at a time."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Background:
    """Two threads and at most two tasks, waiting ones included, which bounds the memory that tasks hold.

    Hashing, writing and NumPy's arithmetic let other threads run, so the server goes on receiving meanwhile.
    """

    _LIMIT = 2

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(self._LIMIT, thread_name_prefix="lethe-log")
        self._running: deque[Future[Any]] = deque()

    def submit(self, task: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Start a task, after the oldest one has ended if there are two; raise what that one raised."""
        self.make_room()
        future = self._threads.submit(task, *args, **kwargs)
        self._running.append(future)
        return future

    def at_once(self, task: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Future[_T] | _T:
        """Do a task here and now; what it raises is raised later, as that of a task in the background."""
        try:
            return task(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 (whatever it is, `finish` raises it)
            failed = Future[_T]()
            failed.set_exception(error)
            self._running.append(failed)
            return failed

    def make_room(self) -> None:
        """Wait until a task could start at once; call it before making the task's data, to save memory."""
        while len(self._running) >= self._LIMIT:
            self._running.popleft().result()

    def finish(self) -> None:
        """Wait for all tasks and raise what the first that failed raised."""
        while self._running:
            self._running.popleft().result()

    def drop(self) -> None:
        """Wait for all tasks, whatever becomes of them."""
        wait(self._running)
        self._running.clear()

    def close(self) -> None:
        """End the threads."""
        self.drop()
        self._threads.shutdown()

"""Functions in threads of their own of which one runs at a time: the threads are there for their stacks.

Nothing is concurrent. Each has its own state of torch's global generators, and its own context variables.
"""

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import final

from strategies.core.seeds import GlobalState


@final
class InTurn:
    """A function in a thread of its own, which runs only while `go_on` waits for it.

    Attributes
    ----------
    ended : bool
        Whether the function has returned, or has raised.
    error : BaseException or None
        What it has raised.

    Examples
    --------
    >>> said = []
    >>> def work():
    ...     said.append("first")
    ...     turn.pause()
    ...     said.append("second")
    >>> turn = InTurn(work)
    >>> turn.go_on()
    >>> said, turn.ended
    (['first'], False)
    >>> turn.go_on()
    >>> said, turn.ended
    (['first', 'second'], True)
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._turn, self._paused = threading.Lock(), threading.Lock()
        self._turn.acquire()  # Released by one side and acquired by the other, each in turn
        self._paused.acquire()
        self._generators: GlobalState | None = None
        self._thread: threading.Thread | None = None
        self._running = False
        self.ended = False
        self.error: BaseException | None = None

    def go_on(self) -> None:
        """Run until the function pauses or ends; if it was left while it ran, wait for that."""
        outer = GlobalState.now()
        if not self._running:
            self._start()
        self._paused.acquire()
        self._running = False
        self._generators = GlobalState.now()
        outer.put_back()
        if self.ended and self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        if self._generators is not None:
            self._generators.put_back()
        if self._thread is None:
            self._thread = threading.Thread(target=copy_context().run, args=(self._run,), daemon=True)
            self._thread.start()
        self._running = True
        self._turn.release()

    @property
    def begun(self) -> bool:
        """Whether the function was ever called."""
        return self._thread is not None

    def pause(self) -> None:
        """Wait for the next turn; only the function itself calls it."""
        self._paused.release()
        self._turn.acquire()

    def _run(self) -> None:
        self._turn.acquire()
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 (raised again where the work was started)
            self.error = error
        finally:
            self.ended = True
            self._paused.release()

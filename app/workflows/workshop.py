"""Where several runs of a federation are worked on together: in one process, side by side."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, final

from flwr.serverapp import Grid

from app.workflows.observer import Observer, Quiet
from app.workflows.session import Session
from strategies.server.grids import notes_of

if TYPE_CHECKING:
    from app.simulation import LocalGrid

T = TypeVar("T")
Work = Callable[[Grid | None], T]
"""Given a grid of the federation, or None to start one."""


@final
class Workshop:
    """Carries out works on runs of one federation; a context manager.

    In one process the works go on together, on copies of the federation (`app.simulation.copies`), which are
    started when the first work comes. Over a network, and where clients are asked whenever they are free,
    they go on one after another.

    Parameters
    ----------
    session
        Of a run of the federation.
    grid
        That of a deployment; None: one process.
    most
        Works that go on together at most, at least 1.
    vectorise
        How many clients train side by side, as in ``run.vectorise``; empty: as the run says.

    Attributes
    ----------
    notes : str
        What the grid said of how clients worked together; empty: nothing.
    """

    def __init__(self, session: Session, grid: Grid | None, most: int, vectorise: str = "") -> None:
        run = session.config.run
        own = run.model_copy(update={"vectorise": vectorise or run.vectorise})
        self._session = replace(session, config=session.config.model_copy(update={"run": own}))
        self._grid, self._most = grid, most
        self._stack = ExitStack()
        self._local: LocalGrid | None = None

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the clients that were started."""
        self._stack.close()

    @property
    def notes(self) -> str:
        """What the clients' grid says about how they worked."""
        return "; ".join(notes_of(self._local)) if self._local is not None else ""

    def each(self, works: Sequence[Work[T]]) -> list[T]:
        """Return what works return.

        Raises
        ------
        BaseException
            What the first one that fails has raised; the others end where they are.
        """
        if self._grid is not None or self._session.config.strategy.traits.asynchronous:
            return [work(self._grid) for work in works]
        found: list[T] = []
        for first in range(0, len(works), self._most):
            found += self._together(works[first : first + self._most])
        return found

    def _together(self, works: Sequence[Work[T]]) -> list[T]:
        from app.simulation.copies import on_copies

        if self._local is None:
            self._local = self._stack.enter_context(self._session.local_grid(copies=self._most))
        return on_copies(self._local, self._session.config.data.clients, works)


@final
class Counted(Quiet):
    """Counts the steps of one of several works among those of all, and says whose they are.

    Parameters
    ----------
    outer
        The observer of all.
    name
        Of this one.
    """

    def __init__(self, outer: Observer, name: str) -> None:
        self._outer, self._name = outer, name

    def advance(self, message: str = "", values: Mapping[str, float] | None = None) -> None:
        """Count one step as done."""
        self._outer.advance(f"{self._name}: {message}", values)

    def note(self, text: str) -> None:
        """Report a remark."""
        self._outer.note(f"{self._name}: {text}")

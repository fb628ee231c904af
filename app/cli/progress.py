"""Shows a person, on stderr, how far a workflow is."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app.wording import count, printable

_NAMES = {
    "test-accuracy": ("accuracy", "{:.1f} %"),
    "attack-success-rate": ("attack success", "{:.1f} %"),
    "test-loss": ("loss", "{:.3f}"),
}


class TerminalObserver:
    """An observer that draws a bar on a terminal, and writes a line per step elsewhere.

    Parameters
    ----------
    console
        Of stderr.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shown]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._title = ""

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bars as they are."""
        self._bar.stop()

    def phase(self, title: str, total: int) -> None:
        """Begin a bar."""
        self._title = printable(title)
        self._task = self._bar.add_task(self._title, total=total, shown="")
        if not self._console.is_terminal:
            self._say(f"{self._title} ({count(total, 'step')})" if total else self._title)

    def advance(self, message: str = "", values: Mapping[str, float] | None = None) -> None:
        """Move the bar by a step, and show the step's numbers."""
        shown = in_words(values or {})
        if self._task is not None:
            self._bar.update(self._task, advance=1, shown=shown)
        if not self._console.is_terminal:
            self._say(", ".join(text for text in (f"{self._title}: {printable(message)}", shown) if text))

    def note(self, text: str) -> None:
        """Write a remark above the bars."""
        self._say(f"note: {printable(text)}")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def in_words(values: Mapping[str, float]) -> str:
    """Return the numbers of a step that a person wants to see.

    Examples
    --------
    >>> in_words({"test-accuracy": 93.14, "num-steps": 5.0})
    'accuracy 93.1 %'
    """
    shown = ((name, form.format(values[key])) for key, (name, form) in _NAMES.items() if key in values)
    return ", ".join(f"{name} {value}" for name, value in shown)

"""Shows a person, on stderr, how far a workflow is."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from app.report.wording import clock, count, printable, wrapped

_PERCENT = {"accuracy", "personal-accuracy", "attack-success-rate"}
_NAMES = {
    "personal-accuracy": "personal accuracy",
    "attack-success-rate": "attack success",
    "f1": "F1",
    "auroc": "AUROC",
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
    "iou": "IoU",
}
_MOST_SHOWN = 4
"""Figures on test data besides the loss."""

_WIDE = 100
"""Characters from which on there is room for a longer bar."""
_QUIET_SECONDS = 30.0
"""Where lines are written: seconds without one after which a slow step says how far it is."""


class _Times(ProgressColumn):
    """The time that a task has taken and, at the pace so far, the time that is left."""

    def render(self, task: Task) -> Text:
        """Return both times; only the first where nothing can be said of the second."""
        elapsed = (task.finished_time if task.finished else task.elapsed) or 0.0
        text = clock(elapsed)
        if (whole := task.fields["whole"]) and not task.finished:
            text += f", {clock(max(whole - elapsed, 0.0))} left"
        return Text(text)


def _bar(console: Console) -> Progress:
    """Return the bar: texts give way to a narrow terminal, never the bar, the count and the times."""
    return Progress(
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
        ),
        BarColumn(bar_width=28 if console.width >= _WIDE else 12),
        MofNCompleteColumn(),
        _Times(table_column=Column(no_wrap=True)),
        TextColumn(
            "{task.fields[shown]}",
            markup=False,
            table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
        ),
        console=console,
        disable=not console.is_terminal,
        expand=True,
    )


class TerminalObserver:
    """Draws a bar on a terminal, given as a console of stderr, and writes a line per step elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = _bar(console)
        self._task: TaskID | None = None
        self._title = ""
        self._shown = ""
        self._said = time.monotonic()

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
        self._title, self._shown = printable(title), ""
        self._task = self._bar.add_task(self._title, total=total, shown="", whole=0.0)
        if not self._console.is_terminal:
            self._say(f"{self._title} ({count(total, 'step')})" if total else self._title)

    def advance(self, message: str = "", values: Mapping[str, float] | None = None) -> None:
        """Move the bar by a step, and show the step's numbers."""
        self._shown = shown = in_words(values or {})
        if self._task is not None:
            task = self._bar.tasks[-1]
            whole = (task.elapsed or 0.0) * (task.total or 0.0) / (task.completed + 1)  # at the pace so far
            self._bar.update(self._task, advance=1, shown=shown, whole=whole)
        if not self._console.is_terminal:
            self._say(", ".join(text for text in (f"{self._title}: {printable(message)}", shown) if text))

    def answered(self, scope: str, done: int, total: int) -> None:
        """Show how many of the clients asked have answered: a step may take minutes."""
        answered = f"{done} of {count(total, 'client')}"
        if self._task is not None:
            self._bar.update(self._task, shown=", ".join(filter(None, (self._shown, answered))))
        if not self._console.is_terminal and time.monotonic() - self._said >= _QUIET_SECONDS:
            self._say(f"{self._title}: {printable(scope)}, {answered} answered")

    def note(self, text: str) -> None:
        """Write a remark above the bars."""
        self._say(f"note: {printable(text)}")

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        text = wrapped(text, self._console.width) if self._console.is_terminal else text
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def in_words(values: Mapping[str, float]) -> str:
    """Return the numbers of a step that a person wants to see.

    >>> in_words({"test-accuracy": 93.14, "num-steps": 5.0})
    'accuracy 93.1 %'
    >>> in_words({"client-score": 81.0, "client-r2": 0.8102, "client-loss": 0.5})
    'score 81.0, R² 0.810, loss 0.500'
    """
    where = "test-" if any(key.startswith("test-") for key in values) else "client-"
    loss = f"{where}loss"
    own = [key for key in values if key.startswith(where) and key != loss][:_MOST_SHOWN]
    keys = ["personal-accuracy", *own[:1], "attack-success-rate", *own[1:], loss]
    return ", ".join(_shown(key.removeprefix(where), values[key]) for key in keys if key in values)


def _shown(name: str, value: float) -> str:
    if name == "score":
        return f"score {value:.1f}"
    words = _NAMES.get(name, name)
    return f"{words} {value:.1f} %" if name in _PERCENT else f"{words} {value:.3f}"

"""app/cli/progress.py: a bar on a terminal, lines elsewhere."""

import io
import re

import pytest
from rich.console import Console
from rich.progress import Task, TaskID

from app.cli.progress import TerminalObserver, _Times


def observed(*, terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100)
    with TerminalObserver(console) as observer:
        observer.phase("train [red]study", 2)
        observer.advance("round 1", {"test-accuracy": 40.0, "train-loss": 2.0})
        observer.advance("round 2")
        observer.note("client 3 is late")
    return stream.getvalue()


def test_lines() -> None:
    assert observed(terminal=False).splitlines() == [
        "train [red]study (2 steps)",
        "train [red]study: round 1, accuracy 40.0 %",
        "train [red]study: round 2",
        "note: client 3 is late",
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_bar_count_and_times_stay_on_a_narrow_terminal(width: int) -> None:
    """Names and figures give way."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    with TerminalObserver(console) as observer:
        observer.phase("train 20261125-042749-fedavg", 10)
        observer.advance("round 1", {"test-accuracy": 96.1, "attack-success-rate": 97.5})
        observer.answered("round 2", 3, 10)
        observer._bar.refresh()
        shown = stream.getvalue().rpartition("\x1b[2K")[2]
    assert len(shown) <= width
    assert "━" in shown or "╸" in shown
    assert " 1/10 " in shown
    assert re.search(r"\d+:\d\d, \d+:\d\d left", shown)
    assert "train 2" in shown
    assert "accuracy" in shown


def test_the_time_that_is_left_falls_while_a_step_takes_long() -> None:
    """Two steps of ten took 4 s, so 20 s in all; 6 s after the second, 10 s are left."""
    task = Task(TaskID(0), "train", 10, 2, lambda: 10.0, fields={"whole": 20.0})
    task.start_time = 0.0
    assert _Times().render(task).plain == "0:10, 0:10 left"
    task.fields["whole"] = 8.0
    assert _Times().render(task).plain == "0:10, 0:00 left"


def test_a_slow_step_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal at once, elsewhere by a line every half minute; a figure stays in view."""
    now = 0.0
    monkeypatch.setattr("app.cli.progress.time.monotonic", lambda: now)
    stream = io.StringIO()
    with TerminalObserver(Console(file=stream, force_terminal=False, width=80)) as observer:
        observer.phase("train study", 2)
        for now, done in ((5.0, 1), (31.0, 2), (40.0, 3)):  # noqa: B007  # read by the clock above
            observer.answered("round 1", done, 4)
    assert stream.getvalue().splitlines() == [
        "train study (2 steps)",
        "train study: round 1, 2 of 4 clients answered",
    ]
    terminal = io.StringIO()
    with TerminalObserver(Console(file=terminal, force_terminal=True, width=120)) as observer:
        observer.phase("train study", 2)
        observer.answered("round 1", 1, 4)
    assert "1 of 4 clients" in terminal.getvalue()


def test_bar() -> None:
    shown = observed(terminal=True)
    assert "train [red]study" in shown
    assert "2/2" in shown
    assert "note: client 3 is late" in shown
    assert "(2 steps)" not in shown


@pytest.mark.parametrize("terminal", [False, True])
def test_a_step_before_any_phase_is_no_fault(terminal: bool) -> None:
    with TerminalObserver(Console(file=io.StringIO(), force_terminal=terminal)) as observer:
        observer.advance("round 1", {})

"""app/cli/progress.py: a bar on a terminal, lines elsewhere."""

import io

import pytest
from rich.console import Console

from app.cli.progress import TerminalObserver


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

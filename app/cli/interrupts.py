"""Handles Ctrl-C: says what was interrupted, and how to go on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from strategies.runs.home import list_runs


class Interrupted(Exception):
    """The user interrupted the command; the message says how to go on."""


@contextmanager
def interruptible(advice: str) -> Iterator[None]:
    """Turn Ctrl-C into `Interrupted` with this advice."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {advice}") from None


@contextmanager
def resumable(home: Path) -> Iterator[None]:
    """Turn Ctrl-C into `Interrupted` that names the run that was just begun under a home."""
    before = set(list_runs(home))
    try:
        yield
    except KeyboardInterrupt:
        begun = [name for name in list_runs(home) if name not in before]
        raise Interrupted(f"interrupted; {_advice(begun, home)}") from None


def _advice(begun: list[str], home: Path) -> str:
    if not begun:
        return "no run was begun"
    return f"continue with: lethe train --resume {begun[-1]} --home {home}"

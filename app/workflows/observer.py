"""Observers of a workflow's progress."""

from collections.abc import Mapping
from typing import Protocol


class Observer(Protocol):
    """Receives the progress of a workflow."""

    def phase(self, title: str, total: int) -> None:
        """Begin a part of the work that has `total` steps."""

    def advance(self, message: str = "", values: Mapping[str, float] | None = None) -> None:
        """Count one step as done."""

    def answered(self, scope: str, done: int, total: int) -> None:
        """Report that within a step `done` of `total` clients that were asked have answered."""

    def note(self, text: str) -> None:
        """Report a remark."""


class Quiet:
    """Ignores all progress."""

    def phase(self, title: str, total: int) -> None:
        """Do nothing."""

    def advance(self, message: str = "", values: Mapping[str, float] | None = None) -> None:
        """Do nothing."""

    def answered(self, scope: str, done: int, total: int) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

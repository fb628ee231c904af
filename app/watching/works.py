"""The pieces of work on a run, training, forgettings, audits, as far as their events tell."""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, final

from pydantic import Field, ValidationError

from strategies.runs.documents import Count, Document, Figures, Number
from strategies.runs.journal import is_written, journals
from strategies.runs.tail import Tail

_MOST_NOTES = 50
_MOST_WORKS = 20
"""The latest ones: a run may be asked to forget for years."""


class _Event(Document):
    """A line of a journal, whatever it tells."""

    time: Number
    event: str
    kind: str = ""
    name: str = ""
    title: str = ""
    total: Count = 0
    message: str = ""
    values: Figures = Field(default={})
    scope: str = ""
    done: Count = 0
    text: str = ""
    outcome: Literal["finished", "interrupted", "failed", ""] = ""
    reason: str = ""


@final
class Work:
    """A piece of work, followed by its journal."""

    def __init__(self, path: Path) -> None:
        self.kind, self.name = "", ""
        self.outcome, self.reason = "", ""
        self.notes: deque[tuple[float, str]] = deque(maxlen=_MOST_NOTES)
        self._path = path
        self._tail = Tail(path)
        self._title, self._total, self._done = "", 0, 0
        self._phase_began, self._stepped, self._began = 0.0, 0.0, 0.0
        self._message = ""
        self._values: Mapping[str, float | None] = {}
        self._answered: Mapping[str, Any] | None = None

    @property
    def state(self) -> str:
        """``running``, or how it ended; a process that was killed interrupts it without a word."""
        return self.outcome or ("running" if is_written(self._path) else "interrupted")

    def update(self) -> bool:
        """Read what is new; return whether anything is."""
        _, lines = self._tail.fresh()
        for line in lines:
            try:
                self._take(_Event.model_validate(line))
            except ValidationError:
                continue  # Damaged: the other lines still tell how far the work is
        return bool(lines)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data; `ends` is when the phase ends at its pace so far (since 1970)."""
        return {
            "kind": self.kind,
            "name": self.name,
            "state": self.state,
            "reason": self.reason,
            "title": self._title,
            "done": self._done,
            "total": self._total,
            "ends": self._ends(),
            "message": self._message,
            "values": dict(self._values),
            "answered": self._answered,
        }

    def _ends(self) -> float | None:
        if not 0 < self._done < self._total:
            return None
        pace = (self._stepped - self._phase_began) / self._done
        return self._phase_began + pace * self._total

    def _take(self, event: _Event) -> None:
        match event.event:
            case "begin":
                self.kind, self.name, self._began = event.kind, event.name, event.time
            case "phase":
                self._title, self._total, self._done = event.title, event.total, 0
                self._phase_began, self._message, self._values, self._answered = event.time, "", {}, None
            case "step":
                self._done, self._stepped, self._answered = self._done + 1, event.time, None
                self._message, self._values = event.message, event.values
            case "answered":
                self._answered = {"scope": event.scope, "done": event.done, "total": event.total}
            case "note":
                self.notes.append((event.time, event.text))
            case "end":
                self.outcome, self.reason = event.outcome, event.reason


@final
class Works:
    """All work on a run, as far as it has been read."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._works: dict[Path, Work] = {}

    def update(self) -> bool:
        """Read what is new; return whether anything is."""
        found = journals(self._run)
        trained = self._latest_training(found)
        kept = {*found[-_MOST_WORKS:], *trained}
        gone = self._works.keys() - kept
        for path in gone:
            del self._works[path]
        for path in sorted(kept - self._works.keys()):
            self._works[path] = Work(path)
        read = [work.update() for work in self._works.values()]
        return any(read) or bool(gone)

    def all(self) -> list[Work]:
        """Return the work, oldest first."""
        return [self._works[path] for path in sorted(self._works)]

    def training(self) -> Work | None:
        """Return the latest training; None where none was recorded."""
        return next((work for work in reversed(self.all()) if work.kind == "train"), None)

    def _latest_training(self, found: list[Path]) -> list[Path]:
        """Return the latest training of those that were read, which stays however old it is."""
        known = [path for path in found if path in self._works and self._works[path].kind == "train"]
        return known[-1:] or found[:1]

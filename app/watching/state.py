"""The state of a run, as its page shows it: read from the run's folder, and what is new since a look."""

import threading
from pathlib import Path
from typing import Any, final

from app.config.run_config import read_toml
from app.report import wording
from app.watching.rounds import Rounds
from app.watching.works import Works
from strategies.core.errors import LetheError
from strategies.runs.documents import Summary, read_checked
from strategies.runs.home import MARKER
from strategies.runs.names import CONFIG, MODEL, SUMMARY

_MOST_NOTES = 50


@final
class Watched:
    """A run that is watched; several threads may ask.

    Parameters
    ----------
    run
        The run's folder.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._rounds, self._works = Rounds(run), Works(run)
        self._settings = _settings(run)
        self._version, self._seen = 0, ""

    def since(self, version: int, generation: int, rounds: int) -> dict[str, Any] | None:
        """Return what is new; None if nothing is.

        Parameters
        ----------
        version, generation, rounds
            As the last answer gave them, and how many rounds came with all answers; 0 before the first.
        """
        with self._lock:
            self._update()
            if version == self._version:
                return None
            known = rounds if generation == self._rounds.generation else 0
            return {
                "version": self._version,
                "generation": self._rounds.generation,
                "first": known,
                "rounds": self._rounds.lines[known:],
                **self._state(),
            }

    def _update(self) -> None:
        read = [self._rounds.update(), self._works.update()]
        now = self._marks()
        if any(read) or now != self._seen:
            self._version += 1
            self._seen = now

    def _marks(self) -> str:
        """Return what changes without a line in any file: who works, and whether the run is there."""
        works = " ".join(work.state for work in self._works.all())
        there = [name for name in (MARKER, MODEL, SUMMARY) if (self._run / name).exists()]
        return f"{works} {there}"

    def _state(self) -> dict[str, Any]:
        works, training = self._works.all(), self._works.training()
        state, reason = self._how_far()
        notes = sorted(note for work in works for note in work.notes)
        return {
            "name": self._run.name,
            "path": str(self._run),
            "state": state,
            "reason": reason,
            "strategy": str(self._settings.get("strategy.name", "")),
            "rounds-planned": self._settings.get("run.rounds", 0),
            "headline": {"key": self._rounds.headline, "name": _named(self._rounds.headline)},
            "loss": {"key": self._rounds.loss, "name": self._rounds.loss.replace("-", " ")},
            "training": None if training is None else training.to_json(),
            "works": [work.to_json() for work in reversed(works) if work.kind != "train"],
            "kept": self._kept(),
            "latest": self._rounds.latest(),
            "clients": self._rounds.clients(),
            "notes": [*(text for _, text in notes[-_MOST_NOTES:]), *self._said_at_the_end()],
        }

    def _how_far(self) -> tuple[str, str]:
        training = self._works.training()
        said, why = ("", "") if training is None else (training.state, training.reason)
        if not (self._run / MARKER).exists():
            return "deleted", ""
        if said in {"running", "failed"}:
            return said, why
        if (self._run / MODEL).exists():
            return "finished", ""
        return ("interrupted" if said else "unfinished"), why

    def _kept(self) -> dict[str, Any] | None:
        """Return which round's model the run has and why, and why it ended early; None before it is known."""
        summary = self._summary()
        if (judged := summary.get("judged")) is None:
            return None
        said = wording.kept_round(judged), wording.stopped_early(judged, summary["rounds"])
        return {"round": judged["round"], "said": [wording.capital(each) for each in said if each]}

    def _summary(self) -> dict[str, Any]:
        try:
            return read_checked(self._run / SUMMARY, Summary)
        except LetheError:
            return {}  # Not finished, or damaged, which `lethe report` says

    def _said_at_the_end(self) -> list[str]:
        """Return the notes of the summary, which nobody may have heard while the run was at work."""
        notes = self._summary().get("notes")
        known = {text for work in self._works.all() for _, text in work.notes}
        return [str(note) for note in notes if note not in known] if isinstance(notes, list) else []


def _settings(run: Path) -> dict[str, Any]:
    try:
        return read_toml(run / CONFIG)
    except LetheError:
        return {}  # The page shows the rounds all the same


def _named(key: str) -> str:
    """Return the name of a figure for people.

    >>> _named("test-accuracy"), _named("client-r2"), _named("")
    ('accuracy, %', 'R²', '')
    """
    plain = key.removeprefix("test-").removeprefix("client-")
    return wording.figure_name(plain.removeprefix("personal-")) if plain else ""

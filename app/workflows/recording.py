"""Records a piece of work on a run: its events in the run's folder, and its figures for trackers.

What is recorded is one stream: what the work tells its observer. `lethe watch` reads the events, and the
trackers that ``run.track`` names are handed them. Neither may hold up the work, and whatever goes wrong with
either is said once.
"""

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

from app.client.node import pick_device
from app.config.run_config import RunConfig
from app.data.record import PLACES
from app.tracking import tracker as trackers
from app.tracking.background import Background
from app.tracking.tracker import Tracked
from app.workflows.observer import Observer
from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.core.extras import not_installed
from strategies.core.settings import Scalar, split_list
from strategies.registry import lookup
from strategies.runs.folder import RunFolder
from strategies.runs.journal import Journal
from strategies.runs.names import REPORT, TRACKED
from strategies.server.words import Place, sums_kept

Kind = Literal["train", "forget", "audit", "compare"]

_ANSWER_SECONDS = 0.2
"""Least time between two events that count answers."""
_MOST_NOTES = 1000
_NAMING = frozenset({"attack.clients", "hard.clients", "data.without", "data.own-classes", "privacy.budgets"})
_PLACES = frozenset({*PLACES, "data.path", "privacy.ledger"})


class Recorder:
    """An observer that hands all on to another, and records it.

    Parameters
    ----------
    inner
        The user's observer.
    journal
        The events of this work; None where they cannot be written.
    tracked, names
        What the trackers are told of the work, and which there are.
    """

    def __init__(
        self, inner: Observer, journal: Journal | None, tracked: Tracked, names: tuple[str, ...]
    ) -> None:
        self._inner = inner
        self._journal = journal
        self._tracked = tracked
        self._names = names
        self._trackers: dict[str, Background] | None = None
        self._problems: dict[str, str] = {}
        self._results: Mapping[str, Scalar] = {}
        self._title, self._done, self._notes = "", 0, 0
        self._answered = 0.0

    @property
    def problems(self) -> list[str]:
        """What went wrong with the trackers, a sentence each."""
        return list(self._problems.values())

    def phase(self, title: str, total: int) -> None:
        """Begin a part of the work; with the first, the trackers begin."""
        self._inner.phase(title, total)
        self._title, self._done = title, 0
        self._add("phase", title=title, total=total)
        if self._trackers is None:
            self._begin_tracking()

    def advance(self, message: str = "", values: Mapping[str, float] | None = None) -> None:
        """Count a step as done; those of work on a finished run are tracked with their values."""
        self._done += 1
        self._add("step", message=message, values=dict(values or {}))
        if self._tracked.kind != "train":
            part = self._title.partition(" ")[0]
            self._track(self._done, {f"{part}/{name}": value for name, value in (values or {}).items()})
        self._inner.advance(message, values)

    def answered(self, scope: str, done: int, total: int) -> None:
        """Report who has answered; not every single answer is recorded."""
        now = time.monotonic()
        if done >= total or now - self._answered >= _ANSWER_SECONDS:
            self._answered = now
            self._add("answered", scope=scope, done=done, total=total)
        self._inner.answered(scope, done, total)

    def note(self, text: str) -> None:
        """Report and record a remark."""
        self._notes += 1
        if self._notes <= _MOST_NOTES:
            self._add("note", text=text)
        self._inner.note(text)

    def aside(self, text: str) -> None:
        """Report a remark that is in the run's folder in another form already."""
        self._inner.note(text)

    def round(self, line: Mapping[str, Any]) -> None:
        """Track a round, given as its line of ``metrics.jsonl``."""
        self._track(int(line["round"]), of_everybody(line))

    def results(self, figures: Mapping[str, Any]) -> None:
        """Keep what the trackers are told at the end: numbers and texts, perhaps nested."""
        self._results = {**self._results, **dict(_flat(figures))}

    def end(self, outcome: str, reason: str = "") -> None:
        """Record the end of the work, and wait for the trackers to have it."""
        if self._trackers is None and outcome == "finished":
            self._begin_tracking()  # Some methods take no steps
        if self._journal is not None:
            self._add("end", outcome=outcome, reason=reason)
        for each in (self._trackers or {}).values():
            each.end(outcome, {**self._results, **({"reason": reason} if reason else {})})
        self._tell()
        self._trackers = {}
        if self._journal is not None:
            self._journal.close()

    def discard(self) -> None:
        """Leave no events, as the work was refused."""
        if self._journal is not None:
            with suppress(OSError):
                self._journal.discard()

    def _add(self, event: str, **fields: Any) -> None:
        if self._journal is None:
            return
        try:
            self._journal.add(event, **fields)
        except LetheError as error:
            self._journal.close()
            self._journal = None
            self._inner.note(f"lethe watch shows no more of this work: {error}")

    def _begin_tracking(self) -> None:
        self._trackers = {}
        for name in self._names:
            make = trackers.maker(name)
            if make is not None:
                self._trackers[name] = Background(make, self._tracked)
            else:
                missing = not_installed(trackers.title(name), "tracking")
                self._say(name, f"{missing}; the run goes on without it")

    def _track(self, step: int, values: Mapping[str, float]) -> None:
        if self._trackers and values:
            for each in self._trackers.values():
                each.figures(step, {_NAME.sub("_", name): value for name, value in values.items()})
            self._tell()

    def _tell(self) -> None:
        for name, each in (self._trackers or {}).items():
            if each.problem and name not in self._problems:
                title = trackers.title(name)
                self._say(name, f"{title} tracks no further, the run goes on without it: {each.problem}")

    def _say(self, name: str, what: str) -> None:
        self._problems[name] = f"run.track: {what}"
        self.note(self._problems[name])


_NAME = re.compile(r"[^\w\-. /]")
"""What the name of a figure may not have for some tracker."""


@contextmanager
def recorded(
    folder: RunFolder, config: RunConfig, kind: Kind, name: str, observer: Observer, completed: int = 0
) -> Iterator[Recorder]:
    """Record a piece of work on a run.

    Parameters
    ----------
    config
        That of the run.
    name
        Of the work; that of the run where it is trained.
    completed
        Rounds that were complete when the work began.
    """
    problem = ""
    try:
        journal = Journal.begin(folder.path, kind, name)
    except LetheError as error:
        journal, problem = None, f"lethe watch cannot show this work: {error}"
    tracked = _tracked(folder, config, kind, name, completed)
    recorder = Recorder(observer, journal, tracked, split_list(config.run.track))
    if problem:
        observer.note(problem)
    try:
        with sums_kept(_place(folder, config)):
            yield recorder
    except BadInput as error:
        recorder.end("failed", str(error))
        recorder.discard()
        raise
    except BaseException as error:
        outcome, reason = _outcome(error)
        recorder.end(outcome, reason)
        raise
    recorder.end("finished")


def _place(folder: RunFolder, config: RunConfig) -> Place:
    """Return where sums are kept: large ones in the run's folder, all on a GPU where one is used."""
    device = pick_device(config.run.device)
    return Place(folder.path, None if device.type == "cpu" else device)


def of_everybody(line: Mapping[str, Any]) -> dict[str, float]:
    """Return a round's figures over all clients, given its line of ``metrics.jsonl``.

    >>> line = {"round": 1, "test-loss": 0.5, "selected": ["a", "b"], "accepted": ["a"],
    ...         "faults": [{"client": "b"}], "clients": {"a": {"loss": 1.0}}}
    >>> of_everybody(line)
    {'test-loss': 0.5, 'clients-asked': 2.0, 'clients-answered': 1.0, 'clients-failed': 1.0}
    """
    numbers = {
        key: float(value)
        for key, value in line.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and key != "round"
    }
    failed = {fault["client"] for fault in line.get("faults", ())} - {wire.EVERYBODY}
    counts = {"asked": line.get("selected", ()), "answered": line.get("accepted", ()), "failed": failed}
    numbers |= {f"clients-{name}": float(len(clients)) for name, clients in counts.items()}
    if spent := [value for value in line.get("epsilons", {}).values() if value is not None]:
        numbers["epsilon-most"] = max(spent)
    return numbers


def shared_config(config: RunConfig) -> dict[str, Scalar]:
    """Return the keys of a run config that name no single client, and no place on a disk."""
    naming = _NAMING | lookup(config.strategy.name).named_clients(config.strategy).keys()
    return {
        key: value
        for key, value in config.to_flat().items()
        if key not in naming | _PLACES and not key.startswith("request.") and "/" not in str(value)
    }


def _tracked(folder: RunFolder, config: RunConfig, kind: Kind, name: str, completed: int) -> Tracked:
    run_id = folder.run_id
    if kind == "train":
        return Tracked(
            run_id, name, kind, folder.path / TRACKED, config=shared_config(config), completed=completed
        )
    own = hashlib.sha256(f"{kind} {name}".encode()).hexdigest()[:12]
    return Tracked(f"{run_id}-{own}", f"{kind} {name}", kind, folder.path / TRACKED, run_id)


def results_of_training(folder: RunFolder, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a tracker is told at the end of a training, given the run's summary."""
    kept = {key: summary[key] for key in ("rounds", "seconds", "final", "traffic")}
    return {**kept, "report": str(folder.path / REPORT)}


def results_of_audit(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a tracker is told of a method's audit, given its ``audit.json``: no client's figures."""
    models = {
        model: {key: value for key, value in document[model].items() if not isinstance(value, Mapping)}
        for model in ("before", "after", "retrain")
    }
    return {**models, "disparity": document["disparity"], "verdict": document["verdict"]["text"]}


def add_notes(folder: RunFolder, notes: Sequence[str]) -> None:
    """Add notes to the summary of a finished run; it is not touched if there are none."""
    if notes:
        summary = folder.read_summary()
        folder.write_summary({**summary, "notes": [*summary.get("notes", ()), *notes]})


def _outcome(error: BaseException) -> tuple[str, str]:
    if isinstance(error, LetheError):
        return "failed", str(error)
    if isinstance(error, Exception):
        return "failed", f"{type(error).__name__}: {error}"
    return "interrupted", ""


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    for key, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float | str) and not isinstance(value, bool):
            yield f"{prefix}{key}", value

"""Whether what a run will write fits on the disk: said before any work is done."""

import shutil
from pathlib import Path

from app.config.run_config import RunConfig
from app.report.wording import size
from app.workflows.observer import Observer
from strategies.asynchronous.settings import updates_per_step
from strategies.core.errors import BadInput
from strategies.log.estimate import LogEstimate
from strategies.runs.home import expand
from strategies.server.selection import cohort_size

_MUCH = 0.5
"""Of what is free: from this share on the run says how large its log will be."""


def check_log_fits(config: RunConfig, clients: int, entries: int, observer: Observer) -> None:
    """Refuse a log that the disk cannot take, and name a retention that it can; note one that takes much.

    Parameters
    ----------
    clients
        How many are connected.
    entries
        Of an update that is logged.

    Raises
    ------
    BadInput
        If less is free than the log will take.
    """
    if not config.log.enabled or not clients:
        return
    run, free = _estimate(config, clients, entries), _free(expand(config.run.home))
    needed = run.log_bytes(config.log.retention, config.log.dtype)
    said = f"{_described(run, config)}: about {size(needed)}, {size(free)} are free"
    if needed > free:
        allowed = _allowed(run, free, config.log.dtype)
        raise BadInput(f'log.retention: given "{config.log.retention}", {said}; allowed {allowed}')
    _note_much(needed, free, said, observer)


def check_rest_fits(
    config: RunConfig,
    clients: int,
    entries: int,
    done: int,
    place: Path,
    observer: Observer,
    *,
    copied: bool = False,
) -> None:
    """Refuse to go on with a run whose log the disk cannot take; note one that takes much of it.

    Parameters
    ----------
    clients
        How many the run has.
    entries
        Of an update that is logged.
    done
        How many rounds are complete.
    place
        Where the run lies.
    copied
        Whether the log of these rounds is copied first.

    Raises
    ------
    BadInput
        If less is free than the log will still take.
    """
    if not config.log.enabled or not clients:
        return
    run, free, kept = _estimate(config, clients, entries), _free(place), config.log
    beyond = run.bytes_after(done, kept.retention, kept.dtype)
    needed = run.log_bytes(kept.retention, kept.dtype) if copied else beyond
    rest = f"{done:,} of them done" + (" and copied" if copied else "")
    said = f"{_described(run, config)}, {rest}: about {size(needed)} more, {size(free)} are free"
    if needed > free:
        raise BadInput(
            f'log.retention: "{kept.retention}" in this run, {said}; a run that goes on keeps its retention, '
            "so make room first"
        )
    _note_much(needed, free, said, observer)


def _estimate(config: RunConfig, clients: int, entries: int) -> LogEstimate:
    waits = not config.strategy.traits.asynchronous
    per_round = cohort_size(clients, config.selection) if waits else updates_per_step(config.strategy)
    return LogEstimate(entries, clients, per_round, config.run.rounds)


def _described(run: LogEstimate, config: RunConfig) -> str:
    each = size(run.update_bytes(config.log.dtype))
    return f"{run.clients:,} clients, {run.per_round:,} a round, {run.rounds:,} rounds, {each} each"


def _note_much(needed: int, free: int, said: str, observer: Observer) -> None:
    if needed > _MUCH * free:
        observer.note(f"the update log will take much of the disk: {said}")


def _allowed(run: LogEstimate, free: int, dtype: str) -> str:
    fitting = [f'"{kept}" ({size(run.log_bytes(kept, dtype))})' for kept in run.fitting(free, dtype)]
    return " or ".join(fitting) or "log.enabled = false"


def _free(home: Path) -> int:
    """Return how many bytes are free where runs are kept, or will be."""
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    return shutil.disk_usage(there).free

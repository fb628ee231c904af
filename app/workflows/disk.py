"""Whether what a run will write fits on the disk: said before any work is done."""

import shutil
from pathlib import Path

from app.report.wording import size
from app.workflows.observer import Observer
from app.workflows.session import Session
from strategies.asynchronous.settings import updates_per_step
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.log.estimate import LogEstimate
from strategies.runs.home import expand
from strategies.server.selection import cohort_size

_MUCH = 0.5
"""Of what is free: from this share on the run says how large its log will be."""


def check_log_fits(session: Session, clients: int, layout: wire.Layout, observer: Observer) -> None:
    """Refuse a log that the disk cannot take, and name a retention that it can; note one that takes much.

    Parameters
    ----------
    clients
        How many are connected.
    layout
        Of the server's state, which an update is as large as.

    Raises
    ------
    BadInput
        If less is free than the log will take.
    """
    config = session.config
    if not config.log.enabled or not clients:
        return
    waits = not config.strategy.traits.asynchronous
    per_round = cohort_size(clients, config.selection) if waits else updates_per_step(config.strategy)
    run = LogEstimate(layout.size // session.isolation, clients, per_round, config.run.rounds)
    needed, free = run.log_bytes(config.log.retention, config.log.dtype), _free(expand(config.run.home))
    said = (
        f"{clients:,} clients, {per_round:,} a round, {config.run.rounds:,} rounds, "
        f"{size(run.update_bytes(config.log.dtype))} each: about {size(needed)}, {size(free)} are free"
    )
    if needed > free:
        allowed = _allowed(run, free, config.log.dtype)
        raise BadInput(f'log.retention: given "{config.log.retention}", {said}; allowed {allowed}')
    if needed > _MUCH * free:
        observer.note(f"the update log will take much of the disk: {said}")


def _allowed(run: LogEstimate, free: int, dtype: str) -> str:
    fitting = [f'"{kept}" ({size(run.log_bytes(kept, dtype))})' for kept in run.fitting(free, dtype)]
    return " or ".join(fitting) or "log.enabled = false"


def _free(home: Path) -> int:
    """Return how many bytes are free where runs are kept, or will be."""
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    return shutil.disk_usage(there).free

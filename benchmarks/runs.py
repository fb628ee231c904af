"""A run that leaves no folder behind, with its clients in this process tree."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flwr.serverapp import Grid

from app.config.run_config import RunConfig
from app.workflows.session import Session


@contextmanager
def local_clients(keys: Sequence[str]) -> Iterator[tuple[Session, Grid]]:
    """Start the clients of a run config in this process tree; yield the run's session and their grid.

    Parameters
    ----------
    keys
        Of the run config, as ``section.key=value``; ``run.home`` is a folder that is gone afterwards.
    """
    with tempfile.TemporaryDirectory() as home:
        session = Session.of(RunConfig().with_overrides([*keys, f"run.home={home}"]))
        with session.local_grid() as grid:
            yield session, grid

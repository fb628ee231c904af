"""Runs that leave no folder behind, with their clients in this process tree, and what a round of them takes.

What protecting the updates adds to a round is measured beside the same rounds without it.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flwr.serverapp import Grid

from app.config.run_config import RunConfig
from app.simulation import LocalGrid
from app.workflows.local_clients import CLIENT_APP, PREPARE
from app.workflows.session import Session
from app.workflows.training import train
from benchmarks.options import BenchmarkOptions


@contextmanager
def local_clients(keys: Sequence[str], client_app: str = CLIENT_APP) -> Iterator[tuple[Session, Grid]]:
    """Start the clients of a run config in this process tree; yield the run's session and their grid.

    Parameters
    ----------
    keys
        Of the run config, as ``section.key=value``; ``run.home`` is a folder that is gone afterwards.
    client_app
        Import path of the ClientApp.
    """
    with tempfile.TemporaryDirectory() as home:
        session = Session.of(RunConfig().with_overrides([*keys, f"run.home={home}"]))
        config = session.config
        clients, workers = config.data.clients, config.run.workers
        with LocalGrid(client_app, config.to_flat(), clients, workers, prepare=PREPARE) as grid:
            yield session, grid


class RoundsOptions(BenchmarkOptions):
    """Options of a benchmark that measures rounds on digits."""

    rounds: int = 3
    """Of each run; the first does not count, if there are others."""
    workers: int = 0
    """Processes that train; 0 are all cores."""

    def keys(self, model: str, clients: int) -> list[str]:
        """Return the runs of a model and a number of clients as keys of the run config."""
        return [
            f"model.name={model}",
            f"data.clients={clients}",
            f"run.rounds={self.rounds}",
            f"run.workers={self.workers}",
        ]


def beside_plain(
    keys: Sequence[str], name: str, protection: Sequence[str], client_app: str = CLIENT_APP
) -> dict[str, float]:
    """Run the same rounds plain and protected.

    Parameters
    ----------
    keys
        Overrides of the run config that both have; ``data.clients`` is one of them.
    name
        Of the protection, by which its figures are called.
    protection
        Overrides that switch it on.
    client_app
        Import path of the ClientApp of both.

    Returns
    -------
    dict
        The figures of `mean_round` as ``plain-…`` and ``<name>-…``, and how many times the plain seconds,
        upload and download the protected ones are.
    """
    plain = mean_round(keys, client_app)
    protected = mean_round([*keys, *protection], client_app)
    return {
        **{f"plain-{figure}": value for figure, value in plain.items()},
        **{f"{name}-{figure}": value for figure, value in protected.items()},
        "times-as-long": protected["seconds"] / plain["seconds"],
        "times-the-upload": protected["bytes-up"] / plain["bytes-up"],
        "times-the-download": protected["bytes-down"] / plain["bytes-down"],
    }


def mean_round(keys: Sequence[str], client_app: str = CLIENT_APP) -> dict[str, float]:
    """Return mean ``seconds``, ``bytes-up`` and ``bytes-down`` of a round, and the last ``test-accuracy``.

    The first round, which warms workers and caches up, does not count where there are others.
    """
    with local_clients([*keys, "log.enabled=false", "run.evaluate-every=1000"], client_app) as (
        session,
        grid,
    ):
        folder = train(session.config, None, grid)
        rounds = folder.read_metrics()
        final = folder.read_summary()["final"]
    later = rounds[1:] or rounds
    means = {
        figure: sum(line[figure] for line in later) / len(later)
        for figure in ("seconds", "bytes-up", "bytes-down")
    }
    return {**means, "test-accuracy": float(final["test-accuracy"])}

"""What protecting the updates adds to a round: the same rounds plain and protected, one after the other."""

from collections.abc import Sequence

from app.config.run_config import RunConfig
from app.simulation import LocalGrid
from app.workflows.session import CLIENT_APP, PREPARE
from app.workflows.training import train


def beside_plain(
    keys: Sequence[str], name: str, protection: Sequence[str], home: str, client_app: str = CLIENT_APP
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
    home
        Folder for the runs.
    client_app
        Import path of the ClientApp of both.

    Returns
    -------
    dict
        The figures of `mean_round` as ``plain-…`` and ``<name>-…``, and how many times the plain seconds,
        upload and download the protected ones are.
    """
    plain = mean_round(keys, home, client_app)
    protected = mean_round([*keys, *protection], home, client_app)
    return {
        **{f"plain-{figure}": value for figure, value in plain.items()},
        **{f"{name}-{figure}": value for figure, value in protected.items()},
        "times-as-long": protected["seconds"] / plain["seconds"],
        "times-the-upload": protected["bytes-up"] / plain["bytes-up"],
        "times-the-download": protected["bytes-down"] / plain["bytes-down"],
    }


def mean_round(keys: Sequence[str], home: str, client_app: str = CLIENT_APP) -> dict[str, float]:
    """Return mean ``seconds``, ``bytes-up`` and ``bytes-down`` of a round, and the last ``test-accuracy``.

    The first round, which warms workers and caches up, does not count where there are others.

    Parameters
    ----------
    keys
        Overrides of the run config.
    home
        Folder for the run.
    client_app
        Import path of the ClientApp.
    """
    places = [f"run.home={home}", "log.enabled=false", "run.evaluate-every=1000"]
    config = RunConfig().with_overrides([*keys, *places])
    clients, workers = config.data.clients, config.run.workers
    with LocalGrid(client_app, config.to_flat(), clients, workers, prepare=PREPARE) as grid:
        folder = train(config, None, grid)
    rounds = folder.read_metrics()
    later = rounds[1:] or rounds
    means = {
        figure: sum(line[figure] for line in later) / len(later)
        for figure in ("seconds", "bytes-up", "bytes-down")
    }
    return {**means, "test-accuracy": float(folder.read_summary()["final"]["test-accuracy"])}

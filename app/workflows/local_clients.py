"""The clients of a run in this process tree: what is to start, and with which configs."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from app.config.run_config import RunConfig
from app.data import clients_in, same_for_all
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar
from strategies.runs.folder import MODEL, RunFolder

if TYPE_CHECKING:
    from app.simulation import LocalGrid

CLIENT_APP = "app.client_app:app"
PREPARE = "app.client.node:prepare"


def local_grid(
    config: RunConfig, folder: RunFolder | None = None, *, forks: bool = False, copies: int = 1
) -> AbstractContextManager["LocalGrid"]:
    """Return a grid of a run's clients in this process tree; a context manager.

    Parameters
    ----------
    folder
        Of a run that was begun before; None: a new one.
    forks
        Whether the clients need objects that only this process has.
    copies
        How often each client is there (see `app.simulation.copies`).

    Raises
    ------
    BadInput
        If the config has no number of clients, as in a deployment, or gives all clients the same file.
    """
    import torch

    from app.client.node import pick_device
    from app.simulation import LocalGrid
    from app.simulation.grouping import Grouping
    from app.simulation.launch import partition_configs

    if config.data.path:
        raise BadInput(same_for_all(config.data.path))
    run_config, clients = config.to_flat(), config.data.clients
    if config.model.weights and folder is not None and (folder.path / MODEL).exists():
        run_config["model.weights"] = str(folder.path)  # The file may be gone
    if not clients:
        raise BadInput(
            "data.clients: 0, so the run's clients are those of a deployment, and only there can they be "
            "asked (flwr run, with run.workflow)"
        )
    folder_of = config.data.folder_of_clients
    nodes = _named_nodes(folder_of, clients) if folder_of else partition_configs(clients)
    grid = LocalGrid(
        CLIENT_APP,
        run_config,
        workers=config.run.workers,
        prepare=PREPARE,
        node_configs=[*nodes] * copies,
        forks=forks,
    )
    device = pick_device(config.run.device)
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    grid.grouping = Grouping.of(config.run.vectorise, device.type, memory)
    return grid


def _named_nodes(folder: str, clients: int) -> Sequence[Mapping[str, Scalar]]:
    """Return the node configs of clients that have a file each, with their names."""
    names = list(clients_in(Path(folder).expanduser()))
    if len(names) != clients:
        raise BadInput(
            f"data.clients: given {clients}, but data.folder-of-clients holds those of {len(names)}; "
            "leave it out"
        )
    return [
        {"client-id": name, "partition-id": i, wire.NUM_PARTITIONS: clients} for i, name in enumerate(names)
    ]

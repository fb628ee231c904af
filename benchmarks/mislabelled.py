"""A client of ten on the digits, some of whose labels are wrong by mistake, as files for a run to read."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app.config.run_config import RunConfig
from app.data import load_client_data
from app.data.split import private_data
from benchmarks.forgetting import ATTACKER
from strategies.core.examples import TensorExamples, in_memory
from strategies.core.seeds import numpy_generator

MISLABELLED = 30
"""Examples of the client with a wrong label."""


def examples_of(config: RunConfig, client: int) -> TensorExamples:
    """Return the examples of a client, by its number in the partition of all."""
    place = {"partition-id": client, "num-partitions": config.data.clients}
    whole = config.data.model_copy(update={"folder_of_clients": ""})
    return in_memory(load_client_data(whole, config.data_seed, place))


def mislabelled(config: RunConfig, count: int) -> tuple[Tensor, Tensor]:
    """Return which of a client's examples get a wrong label, and by how much it is off, shape [n] each."""
    generator = numpy_generator(config.data_seed, "mislabelled")
    places = np.sort(generator.permutation(count)[:MISLABELLED])
    return torch.from_numpy(places), torch.from_numpy(generator.integers(1, 10, len(places)))


def write_data(config: RunConfig, folder: Path) -> list[str]:
    """Write the data set and every client's partition into files, with some wrong labels of one client.

    Returns
    -------
    list of str
        The keys of the run config that have them read.
    """
    clients, whole = folder / "clients", folder / "all.npz"
    clients.mkdir(parents=True, exist_ok=True)
    pool = private_data(config.data).train
    np.savez(whole, x=pool.stored.numpy(), y=pool.y.numpy())
    for client in range(config.data.clients):
        examples = examples_of(config, client)
        y = examples.y.clone()
        if str(client) == ATTACKER:
            places, off = mislabelled(config, len(y))
            y[places] = (y[places] + off) % 10
        np.savez(clients / f"{client}.npz", x=examples.x.numpy(), y=y.numpy())
    return [f"data.name=npz:{whole}", f"data.folder-of-clients={clients}"]

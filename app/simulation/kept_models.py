"""The simulated clients' own models after a run, and after each forgetting.

A deployed client's state lies with its SuperNode. A simulation must keep it between two commands: the run's
checkpoint holds the clients' states as the run left them, and each forgetting adds a file with the models
that the clients made for it. The run's own models are never changed.
"""

from pathlib import Path

import torch
from flwr.app import RecordDict
from flwr.serverapp import Grid

from app.forgettings.folder import forgetting_paths, unpruned
from app.messages import codec
from strategies.client.data_tags import tags_in
from strategies.client.own_models import records_of
from strategies.core.errors import BadInput
from strategies.runs.folder import RunFolder
from strategies.runs.tensor_file import read_sealed, write_sealed
from strategies.server.grids import StatefulGrid

CLIENTS = "clients.safetensors"
"""Name of the file in a forgetting's folder."""


def restore_states(folder: RunFolder, grid: Grid, besides: str = "") -> None:
    """Give simulated clients back the models that they had after a finished run and each forgetting.

    `besides` names a forgetting that is about to be made anew, whose models are left out. Does nothing on a
    grid whose clients keep their states themselves.

    Raises
    ------
    BadInput
        If the clients' models were erased.
    """
    if not isinstance(grid, StatefulGrid):
        return
    checkpoint = folder.read_checkpoint()
    states = (
        {} if checkpoint is None else {int(n): codec.load(s) for n, s in checkpoint.client_states.items()}
    )
    if not any(records_of(state, "") for state in states.values()):
        raise BadInput(
            f"run '{folder.name}': the clients' own models are not in its folder: they were with the "
            "clients, or its checkpoint was deleted. Ask the federation that trained it "
            "(run.workflow='forget', nodes "
            'with state="<folder>"), or train with `lethe train`; Flower\'s virtual clients keep no model '
            "after a run"
        )
    for path in forgetting_paths(folder):
        if path.name != besides and (path / CLIENTS).exists():
            for node, tensor in read_sealed(path / CLIENTS).tensors.items():
                states.setdefault(int(node), RecordDict()).update(codec.load(tensor.numpy().tobytes()))
    grid.restore_client_states({node: codec.dump(state) for node, state in states.items()})
    if unpruned(folder) is not folder:  # Else the clients' states have the tags as well
        restore_tags(folder, grid)


def restore_tags(folder: RunFolder, grid: Grid) -> None:
    """Give simulated clients back the tags of their data in the run (see `strategies.client.data_tags`).

    For a pruned run, those of the run it came from, whose data a request is about. Does nothing on a grid
    whose clients keep their states themselves.
    """
    if not isinstance(grid, StatefulGrid) or (checkpoint := unpruned(folder).read_checkpoint()) is None:
        return
    states = {node: codec.load(state) for node, state in grid.client_states().items()}
    present = set(grid.get_node_ids())
    for node, kept in checkpoint.client_states.items():
        if int(node) in present:
            states.setdefault(int(node), RecordDict()).update(tags_in(codec.load(kept)))
    grid.restore_client_states({node: codec.dump(state) for node, state in states.items() if state})


def keep_states(path: Path, grid: Grid, lineage: str) -> None:
    """Write the models that simulated clients made in a lineage into a forgetting's folder."""
    if not isinstance(grid, StatefulGrid):
        return
    made = {node: records_of(codec.load(state), lineage) for node, state in grid.client_states().items()}
    contents = {str(node): codec.dump(records) for node, records in made.items() if records}
    write_sealed(
        path / CLIENTS,
        {node: torch.frombuffer(bytearray(data), dtype=torch.uint8) for node, data in contents.items()},
    )

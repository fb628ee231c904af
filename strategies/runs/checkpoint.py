"""A checkpoint: all that a run needs to go on after a round as if never interrupted, in one sealed file.

Where clients keep much between messages, their states lie in further files beside it, which the checkpoint
names (see `strategies.runs.client_states`): a round writes those that have changed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from strategies.core.errors import BadInput
from strategies.core.wire import State
from strategies.runs.client_states import FOLDER, StateFiles, Table, read_states, split_bytes
from strategies.runs.tensor_file import TensorFile, read_sealed, write_sealed

VERSION = 2
"""Of the file's layout; later versions are refused."""

_STATE, _TENSOR, _CLIENT = "state/", "tensor/", "client/"
_CLIENTS = "clients"
_FEW_BYTES = 2**20
"""Of the clients' states: so much is written into the checkpoint itself."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run after a complete round.

    Parameters
    ----------
    round
        The last complete round, from 0 (nothing trained yet).
    extra
        Small things: numbers, texts, truth values, None, and lists and objects of them.
    tensors
        Large things besides the model, by name.
    client_states
        What must be handed back to each client, by client-id or node id.
    state_versions
        A number that changes with a client's state; missing for those that may have changed in any case.
    """

    round: int
    state: State
    extra: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    client_states: Mapping[int | str, bytes] = field(default_factory=dict)
    state_versions: Mapping[int | str, int] = field(default_factory=dict)


def write_checkpoint(path: Path, checkpoint: Checkpoint, files: StateFiles | None = None) -> Table:
    """Replace the checkpoint in a file, all of it or nothing; return what it names of the files of states.

    Parameters
    ----------
    files
        Take the clients' states, if these are many bytes; None: they are written into the checkpoint.

    Raises
    ------
    LetheError
        If the disk is full or does not take the file; the old checkpoint is untouched.
    """
    states = checkpoint.client_states
    apart = files is not None and sum(map(len, states.values())) > _FEW_BYTES
    table = files.write(states, checkpoint.state_versions) if files is not None and apart else []
    within = {} if apart else states
    tensors = {_STATE + name: tensor for name, tensor in checkpoint.state.items()}
    tensors |= {_TENSOR + name: tensor for name, tensor in checkpoint.tensors.items()}
    tensors[_CLIENTS] = _from_bytes(b"".join(within.values()))
    described = {
        "round": checkpoint.round,
        "extra": dict(checkpoint.extra),
        "clients": list(within),
        "sizes": [len(state) for state in within.values()],
        "files": table,
    }
    write_sealed(path, tensors, {"version": str(VERSION), "checkpoint": json.dumps(described)})
    return table


def files_named(path: Path) -> Table:
    """Return what the checkpoint in a file names of the files of states; raises as `read_checkpoint` does."""
    table: Table = _described(path, read_sealed(path)).get("files", [])
    return table


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in a file.

    Raises
    ------
    RunCorrupt
        If the file is missing or damaged.
    BadInput
        If it is of another version.
    """
    found = read_sealed(path)
    described = _described(path, found)
    clients = _clients(found, described) | read_states(path.parent / FOLDER, described.get("files", []))
    return Checkpoint(
        described["round"], _part(found, _STATE), described["extra"], _part(found, _TENSOR), clients
    )


def _described(path: Path, found: TensorFile) -> dict[str, Any]:
    version = found.metadata.get("version", "")
    if version not in {"1", str(VERSION)}:
        raise BadInput(f"{path}: checkpoint of version {version}, this Lethe reads version {VERSION}")
    described: dict[str, Any] = json.loads(found.metadata["checkpoint"])
    return described


def _clients(found: TensorFile, described: Mapping[str, Any]) -> dict[int | str, bytes]:
    """Return the states that are in the checkpoint itself; version 1 has a tensor for each."""
    keys = described["clients"]
    if _CLIENTS in found.tensors:
        states = split_bytes(found.tensors[_CLIENTS].numpy().data, described["sizes"])
    else:
        states = [found.tensors[f"{_CLIENT}{i}"].numpy().tobytes() for i in range(len(keys))]
    return dict(zip(keys, states, strict=True))


def _part(found: TensorFile, prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in found.tensors.items() if name.startswith(prefix)}


def _from_bytes(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content) or bytearray(1), dtype=torch.uint8)[: len(content)]

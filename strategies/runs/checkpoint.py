"""A checkpoint: all that a run needs to go on after a round as if never interrupted, in one sealed file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from strategies.core.errors import BadInput
from strategies.core.wire import State
from strategies.runs.tensor_file import TensorFile, read_sealed, write_sealed

VERSION = 1
"""Of the file's layout; another version is refused."""

_STATE, _TENSOR, _CLIENT = "state/", "tensor/", "client/"


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
    """

    round: int
    state: State
    extra: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    client_states: Mapping[int | str, bytes] = field(default_factory=dict)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in a file, all of it or nothing.

    Raises
    ------
    LetheError
        If the disk is full or does not take the file; the old checkpoint is untouched.
    """
    clients = list(checkpoint.client_states)
    tensors = {_STATE + name: tensor for name, tensor in checkpoint.state.items()}
    tensors |= {_TENSOR + name: tensor for name, tensor in checkpoint.tensors.items()}
    tensors |= {f"{_CLIENT}{i}": _from_bytes(checkpoint.client_states[key]) for i, key in enumerate(clients)}
    described = {"round": checkpoint.round, "extra": dict(checkpoint.extra), "clients": clients}
    write_sealed(path, tensors, {"version": str(VERSION), "checkpoint": json.dumps(described)})


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
    if found.metadata.get("version") != str(VERSION):
        version = found.metadata.get("version")
        raise BadInput(f"{path}: checkpoint of version {version}, this Lethe reads version {VERSION}")
    described = json.loads(found.metadata["checkpoint"])
    clients = {key: _to_bytes(found.tensors[f"{_CLIENT}{i}"]) for i, key in enumerate(described["clients"])}
    return Checkpoint(
        described["round"], _part(found, _STATE), described["extra"], _part(found, _TENSOR), clients
    )


def _part(found: TensorFile, prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in found.tensors.items() if name.startswith(prefix)}


def _from_bytes(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content) or bytearray(1), dtype=torch.uint8)[: len(content)]


def _to_bytes(tensor: Tensor) -> bytes:
    return tensor.numpy().tobytes()

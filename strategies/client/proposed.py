"""A vector that a client changes with each answer, and takes up when the server says that it used the answer.

An answer that is lost, late or rejected changes neither side: the client goes on from the vector that the
server knows. A vector belongs to one training; the next one begins with zero.
"""

import secrets
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from torch import Tensor

from strategies.core import wire

TRAINING = "proposed-training"
"""str, server to client: names the training that the vector belongs to."""
USED = "proposed-used"
"""int, server to client: the last round whose answer of this client was used; 0: none."""
_KEPT, _NEXT, _ROUND = "kept", "next", "round"
_USED = "used/"


class Proposed:
    """A client's vector.

    Parameters
    ----------
    state
        The client's ``context.state``, changed in place.
    config
        The record ``config`` of the message, with `TRAINING` and `USED`.

    Attributes
    ----------
    value : Tensor
        The vector as the server knows it, shape [size]; zero where there is none.
    """

    def __init__(self, state: RecordDict, config: ConfigRecord, size: int, name: str) -> None:
        self._state, self._name = state, name
        self._training = str(config.get(TRAINING, ""))
        record = state.array_records.get(name, ArrayRecord())
        status = state.config_records.get(f"{name}-facts", ConfigRecord())
        which = _NEXT if status.get(_ROUND) == config.get(USED) else _KEPT
        stored = record.get(which) if status.get(TRAINING) == self._training else None
        flat = None if stored is None else torch.from_numpy(np.array(stored.numpy()))
        self.value = flat if flat is not None and flat.shape == (size,) else torch.zeros(size)

    def propose(self, value: Tensor, server_round: int) -> None:
        """Keep the vector that goes with an answer until the server says whether it used the answer."""
        arrays = {_KEPT: self.value, _NEXT: value}
        self._state[self._name] = ArrayRecord({key: Array(flat.numpy()) for key, flat in arrays.items()})
        self._state[f"{self._name}-facts"] = ConfigRecord({TRAINING: self._training, _ROUND: server_round})


class Confirmed:
    """The server's side: the training's name, and for each client the last round whose answer was used."""

    def __init__(self) -> None:
        self._training = secrets.token_hex(8)
        self._used: dict[str, int] = {}

    def tell(self, message: Message, client: str) -> None:
        """Put into a client's message what it needs to know, by the name that `note` gives it."""
        wire.add_entries(message, {TRAINING: self._training, USED: self._used.get(client, 0)})

    def note(self, clients: Iterable[str], server_round: int) -> None:
        """Note whose answers a round has used."""
        self._used.update(dict.fromkeys(clients, server_round))

    def memory(self) -> dict[str, Tensor]:
        """Return what must be in a checkpoint."""
        name = torch.tensor(list(self._training.encode()), dtype=torch.uint8)
        return {"training": name, **{f"{_USED}{i}": torch.tensor(t) for i, t in self._used.items()}}

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `memory` returned."""
        self._training = bytes(tensors["training"].tolist()).decode()
        names = [name for name in tensors if name.startswith(_USED)]
        self._used = {name.removeprefix(_USED): int(tensors[name]) for name in names}

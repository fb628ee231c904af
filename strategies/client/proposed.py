"""A vector that a client changes with each answer, and takes up when the server says that it used the answer.

What is lost, late or rejected so changes neither side: the client goes on from the vector that the server
knows of. A vector belongs to one training; the next one begins with zero.
"""

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

TRAINING = "proposed-training"
"""str, server to client: names the training that the vector belongs to."""
USED = "proposed-used"
"""int, server to client: the last round whose answer of this client was used; 0: none."""
_KEPT, _NEXT, _ROUND = "kept", "next", "round"


class Proposed:
    """A client's vector.

    Parameters
    ----------
    state
        The client's ``context.state``, changed in place.
    config
        The record ``config`` of the message, with `TRAINING` and `USED`.
    size
        Entries of the vector.
    name
        Of its records in the state.

    Attributes
    ----------
    value : Tensor
        The vector as the server knows it, shape [size]; zero where there is none.
    """

    def __init__(self, state: RecordDict, config: ConfigRecord, size: int, name: str) -> None:
        self._state, self._name = state, name
        self._training = str(config.get(TRAINING, ""))
        record = state.array_records.get(name, ArrayRecord())
        facts = state.config_records.get(f"{name}-facts", ConfigRecord())
        which = _NEXT if facts.get(_ROUND) == config.get(USED) else _KEPT
        held = record.get(which) if facts.get(TRAINING) == self._training else None
        flat = None if held is None else torch.from_numpy(np.array(held.numpy()))
        self.value = flat if flat is not None and flat.shape == (size,) else torch.zeros(size)

    def propose(self, value: Tensor, server_round: int) -> None:
        """Keep what the server is sent, until it says whether it used that."""
        arrays = {_KEPT: self.value, _NEXT: value}
        self._state[self._name] = ArrayRecord({key: Array(flat.numpy()) for key, flat in arrays.items()})
        self._state[f"{self._name}-facts"] = ConfigRecord({TRAINING: self._training, _ROUND: server_round})

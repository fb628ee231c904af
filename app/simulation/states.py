"""The clients' states between messages, in Flower's protobuf form."""

from collections.abc import Mapping
from typing import final

from app.messages import codec
from strategies.core.errors import LetheError


@final
class ClientStates:
    """The contents of each client's ``context.state``, by node id, 1 to `num_nodes`."""

    def __init__(self, num_nodes: int) -> None:
        self._num_nodes = num_nodes
        self._states: dict[int, bytes] = {}
        self._versions: dict[int, int] = {}
        self._changes = 0

    def get(self, node_id: int) -> bytes:
        """Return a client's state; no bytes if it is empty."""
        return self._states.get(node_id, b"")

    def set(self, node_id: int, state: bytes) -> None:
        """Replace a client's state."""
        self._states[node_id] = state
        self._note(node_id)

    def versions(self) -> dict[int, int]:
        """Return a number for each client whose state was ever set, which no earlier state of it had."""
        return dict(self._versions)

    def _note(self, node_id: int) -> None:
        self._changes += 1
        self._versions[node_id] = self._changes

    def all(self) -> dict[int, bytes]:
        """Return the states that are not empty, in the order of the node ids."""
        return {node_id: state for node_id, state in sorted(self._states.items()) if state}

    def replace(self, states: Mapping[int, bytes]) -> None:
        """Replace all states.

        Raises
        ------
        LetheError
            If a node is unknown or its state cannot be read; nothing is changed then.
        """
        for node_id, state in states.items():
            if not 1 <= node_id <= self._num_nodes:
                raise LetheError(f"state of an unknown node {node_id}, expected 1 to {self._num_nodes}")
            try:
                codec.load(state)
            except ValueError as error:
                raise LetheError(f"the state of node {node_id} cannot be read: {error}") from error
        self._states = dict(states)
        for node_id in states:
            self._note(node_id)

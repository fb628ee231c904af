"""A grid whose clients work in this very process, one after another: what counts is not how long they take.

Many short runs share the data and the libraries that a process has loaded.
"""

from collections import Counter
from collections.abc import Iterable
from typing import final

from flwr.app import Message
from flwr.supercore.run import Run

from app.client_app import app
from app.config.run_config import RunConfig
from app.simulation.client import RUN_ID, Clients
from app.simulation.grid import take_identity
from app.simulation.launch import partition_configs
from strategies.server.grids import BaseGrid


@final
class InlineGrid(BaseGrid):
    """Clients of a run in this process; a message is worked on when it is pushed.

    Parameters
    ----------
    config
        Of the run.

    Attributes
    ----------
    asked
        How many messages of each type were pushed.
    """

    def __init__(self, config: RunConfig) -> None:
        take_identity()
        nodes = partition_configs(config.data.clients)
        self._clients = Clients(app, config.to_flat(), nodes)
        self._states = dict.fromkeys(range(1, len(nodes) + 1), b"")
        self._replies: dict[str, Message] = {}
        self._count = 0
        self.asked: Counter[str] = Counter()
        self._run = Run.create_empty(RUN_ID)

    def get_node_ids(self) -> list[int]:
        """Return the ids of all clients' nodes."""
        return list(self._states)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Have each client answer; return the ids of the messages."""
        ids = []
        for message in messages:
            self._count += 1
            self.asked[message.metadata.message_type] += 1
            ids.append(str(self._count))
            message.metadata.__dict__["_message_id"] = ids[-1]
            node = message.metadata.dst_node_id
            answer, self._states[node] = self._clients.answer(message, self._states[node])
            self._replies[ids[-1]] = Message(answer, reply_to=message)
        return ids

    def pull_messages(self, message_ids: Iterable[str | None]) -> list[Message]:
        """Return the replies to these messages, each once."""
        return [self._replies.pop(i) for i in message_ids if i is not None and i in self._replies]

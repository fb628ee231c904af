"""The project's own ClientApp, of which the last tenth of the clients fails whenever it is to train.

Under secure aggregation such a client has dealt its shares by then, so that the others must open them.
"""

from typing import final

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from app.client_app import app as whole
from strategies.core import wire


def num_lost(clients: int) -> int:
    """Return how many of that many clients are lost.

    Examples
    --------
    >>> num_lost(30), num_lost(5)
    (3, 1)
    """
    return max(1, clients // 10)


class Lost(Exception):
    """What a lost client ends with."""


@final
class LosingApp(ClientApp):
    """Fail at training where the client is one of the last; do as the project's own ClientApp otherwise."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer, or raise `Lost`."""
        own = context.node_config
        partition, partitions = int(str(own["partition-id"])), int(str(own[wire.NUM_PARTITIONS]))
        if message.metadata.message_type == wire.TRAIN and partition >= partitions - num_lost(partitions):
            raise Lost(f"client {partition} is lost")
        return whole(message, context)


app = LosingApp()

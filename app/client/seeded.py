"""Layers that draw, such as dropout, draw what seed, client, round and type of message decide.

They draw from torch's global generator, which all clients of a process share; so each message has a state of
its own, and a run gives the same model with any number of workers. The precision of local training is set
here as well.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

from flwr.app import Context, Message

from app.client.node import Node
from strategies.client.precision import computed_in
from strategies.core.seeds import seeded_layers, torch_generator


def seed_layers(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """Handle a message with torch's global generator seeded for it, in the run's precision; a mod."""
    node = Node.of(message, context)
    seeded = layers_of(node, message.metadata.message_type)
    with seeded, computed_in(node.config.run.precision, node.device):
        return call_next(message, context)


def layers_of(node: Node, kind: str) -> AbstractContextManager[None]:
    """Return a context in which torch's global generator is seeded for a client's message of a type."""
    place = (node.client_id, "round", node.server_round)
    return seeded_layers(torch_generator(node.seed, "layers", kind, *place), node.device)

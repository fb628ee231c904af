"""Works that say themselves where they train: generators, of which many go on together without threads.

Such a work yields a `Request`, and is sent what became of it. It must leave nothing behind in its thread
while it waits, such as a context variable or a state of torch's generators: others go on in between.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import TypeVar

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from strategies.client.stacked import Outcome
from strategies.client.stacked_data import Request

T = TypeVar("T")

Pausing = Generator[Request, Outcome, T]
"""A work that returns a T."""


class PausingApp(ClientApp, ABC):
    """A ClientApp that answers some messages as such a work."""

    @abstractmethod
    def pausing(self, message: Message, context: Context) -> Pausing[RecordDict] | None:
        """Return what answers a message with a content; None: only a call of the app does.

        The message's records may be those of other messages: they are not changed.
        """

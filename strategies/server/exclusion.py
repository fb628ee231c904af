"""Training without some examples: clients are told, with the model, which of their examples to leave out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from strategies.core import wire
from strategies.server.members import ClientInfo
from strategies.server.wrapper import StrategyWrapper


@dataclass(frozen=True)
class Drop:
    """Examples that clients must leave out of their training.

    Parameters
    ----------
    classes
        Labels that every client leaves out.
    indices
        Client-id -> positions in that client's own data.
    gone
        What was forgotten before and counts neither way, for methods that work on what is dropped.
    """

    classes: tuple[int, ...] = ()
    indices: Mapping[str, Sequence[int]] = field(default_factory=dict)
    gone: "Drop | None" = None

    @staticmethod
    def joined(drops: Iterable["Drop"]) -> "Drop":
        """Return what several leave out between them.

        Examples
        --------
        >>> Drop.joined([Drop((7,), {"a": (2,)}), Drop((3, 7), {"a": (0, 2)})]).config("a")
        {'drop-classes': [3, 7], 'drop-indices': [0, 2]}
        """
        listed = list(drops)
        clients = dict.fromkeys(client_id for drop in listed for client_id in drop.indices)
        indices = {i: tuple(sorted({p for drop in listed for p in drop.indices.get(i, ())})) for i in clients}
        return Drop(tuple(sorted({label for drop in listed for label in drop.classes})), indices)

    def takes_all(self, info: ClientInfo) -> bool:
        """Say whether a client certainly has nothing left, by what it said of itself.

        Where both labels and positions are left out, that depends on which examples have those labels, and
        only the client knows.
        """
        positions = len(self.indices.get(info.client_id, ()))
        labelled = sum(info.label_counts[c] for c in self.classes if c < len(info.label_counts))
        known = info.known_examples
        return known is not None and max(positions, labelled) >= known

    def config(self, client_id: str) -> dict[str, list[int]]:
        """Return what a client's message must say."""
        entries = {
            wire.DROP_CLASSES: list(self.classes),
            wire.DROP_INDICES: list(self.indices.get(client_id, ())),
        }
        if self.gone is not None:
            entries[wire.GONE_CLASSES] = list(self.gone.classes)
            entries[wire.GONE_INDICES] = list(self.gone.indices.get(client_id, ()))
        return {key: value for key, value in entries.items() if value}


@final
class DroppingStrategy(StrategyWrapper):
    """Tell clients which of their examples to leave out.

    Parameters
    ----------
    inner
        Any strategy.
    drop
        What is left out.
    names
        Node id -> client-id.
    """

    def __init__(self, inner: Strategy, drop: Drop, names: Mapping[int, str]) -> None:
        super().__init__(inner)
        self._drop = drop
        self._names = names

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Add the instruction to the messages."""
        return self._told(self.inner.configure_train(server_round, arrays, config, grid))

    def configure_return(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Add the instruction to the messages."""
        return self._told(super().configure_return(server_round, arrays, config, grid))

    def _told(self, messages: Iterable[Message]) -> Iterable[Message]:
        for message in messages:
            extra = self._drop.config(self._names[message.metadata.dst_node_id])
            if extra:
                records = dict(message.content)
                records[wire.CONFIG] = ConfigRecord({**message.content.config_records[wire.CONFIG], **extra})
                message.content = RecordDict(records)
            yield message

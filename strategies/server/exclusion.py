"""Training without some examples: a message says which of its examples a client must leave out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strategies.server.members import ClientInfo


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
        """Return the union of several drops.

        Examples
        --------
        >>> Drop.joined([Drop((7,), {"a": (2,)}), Drop((3, 7), {"a": (0, 2)})]).config("a")
        {'drop-classes': [3, 7], 'drop-indices': [0, 2]}
        """
        listed = list(drops)
        clients = dict.fromkeys(client_id for drop in listed for client_id in drop.indices)
        indices = {i: tuple(sorted({p for drop in listed for p in drop.indices.get(i, ())})) for i in clients}
        return Drop(tuple(sorted({label for drop in listed for label in drop.classes})), indices)

    def takes_all(self, info: "ClientInfo") -> bool:
        """Return whether a client certainly has nothing left, by its own description.

        With both labels and positions left out, only the client knows how far the two overlap.
        """
        positions = len(self.indices.get(info.client_id, ()))
        labelled = info.least_of(self.classes)
        known = info.known_examples
        return known is not None and max(positions, labelled) >= known

    def config(self, client_id: str) -> dict[str, list[int]]:
        """Return what a client's message must say."""
        from strategies.core import wire  # with torch: a request itself is read without

        entries = {
            wire.DROP_CLASSES: list(self.classes),
            wire.DROP_INDICES: list(self.indices.get(client_id, ())),
        }
        if self.gone is not None:
            entries[wire.GONE_CLASSES] = list(self.gone.classes)
            entries[wire.GONE_INDICES] = list(self.gone.indices.get(client_id, ()))
        return {key: value for key, value in entries.items() if value}

"""Secure sums without a grid: clients that answer in this process, are lost, or are made to lie."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict

from strategies.core import wire
from strategies.core.seeds import numpy_generator
from strategies.layers.secagg.client import Refused, SecureClient
from strategies.layers.secagg.masking import Vector
from strategies.layers.secagg.server import SecureSum
from strategies.server.cohort import Reply
from tests.strategies.fakes import FakeGrid

Spoil = Callable[[str, str, dict[str, wire.ConfigValue]], None]
"""Changes a client's answer: message type, client-id, entries."""
MASKED = "masked"


def vectors(count: int, size: int = 6) -> dict[str, Vector]:
    """Return vectors of large positive and negative numbers, by client-id."""
    draw = numpy_generator(7, "vectors").integers(-(2**55), 2**55, size=(count, size))
    return {f"c{i}": row.copy().view(np.uint64) for i, row in enumerate(draw)}


@dataclass
class World:
    """Some clients, and whom the server loses.

    Parameters
    ----------
    plain
        The clients' vectors, by client-id.
    silent
        By message type: who does not answer it; under ``masked`` who sends no vector.
    spoil
        Changes answers.
    tamper
        Changes what the server tells a client, before it reads it.
    """

    plain: dict[str, Vector]
    threshold: float = 0.67
    silent: dict[str, set[str]] = field(default_factory=dict)
    spoil: Spoil = lambda kind, client_id, entries: None
    tamper: Spoil = lambda kind, client_id, entries: None

    def __post_init__(self) -> None:
        """Take the identity that messages need."""
        FakeGrid({})
        self.states = {i: RecordDict() for i in self.plain}
        self.faults: list[tuple[str, str]] = []
        self.sent: dict[str, Vector] = {}
        self.seen: list[RecordDict] = []
        self.secure = SecureSum(
            list(self.plain), self.threshold, self.ask, lambda i, why: self.faults.append((i, why))
        )

    def half(self, client_id: str, told: dict[str, wire.ConfigValue]) -> SecureClient:
        """Return a client's half for one message."""
        return SecureClient(ConfigRecord(dict(told)), self.states[client_id], self.threshold)

    def ask(
        self, kind: str, content: Callable[[str], RecordDict], client_ids: Sequence[str]
    ) -> Iterator[Reply]:
        """Let clients answer."""
        for client_id in client_ids:
            if client_id in self.silent.get(kind, set()):
                continue
            told = dict(content(client_id).config_records[wire.CONFIG])
            self.tamper(kind, client_id, told)
            half = self.half(client_id, told)
            answers = {
                wire.SECAGG_KEYS: half.keys,
                wire.SECAGG_SHARES: half.shares,
                wire.SECAGG_UNMASK: half.unmask,
            }
            try:
                entries = answers[kind]()
            except Refused as reason:
                entries = {wire.REFUSED: str(reason)}
            self.spoil(kind, client_id, entries)
            yield self.reply(client_id, entries)

    def reply(self, client_id: str, entries: dict[str, wire.ConfigValue]) -> Reply:
        """Return a reply of a client with some entries."""
        content = RecordDict({wire.CONFIG: ConfigRecord(dict(entries))})
        self.seen.append(content)
        return Reply(client_id, Message(content, 1, "query.x"))

    def send(self) -> None:
        """Let all who are ready send their vectors."""
        for client_id in self.secure.open():
            if client_id in self.silent.get(MASKED, set()):
                continue
            told = self.secure.invitation(client_id)
            self.tamper(MASKED, client_id, told)
            try:
                record, entries = self.half(client_id, told).masked(self.plain[client_id].copy())
            except Refused as reason:
                self.faults.append((client_id, f"refused: {reason}"))
                continue
            self.spoil(MASKED, client_id, entries)
            content = RecordDict({wire.ARRAYS: record, wire.CONFIG: ConfigRecord(dict(entries))})
            self.sent[client_id] = record[wire.MASKED].numpy().view(np.uint64)
            self.secure.add(client_id, content, len(self.plain[client_id]))

    def run(self) -> Vector | None:
        """Return the sum."""
        self.send()
        return self.secure.close()

    def expected(self) -> Vector:
        """Return the plain sum over those whose vectors came."""
        total: Vector = sum((self.plain[i] for i in self.sent), start=np.zeros(6, dtype=np.uint64))
        return total

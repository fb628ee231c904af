"""One worker process: takes messages, runs the clients, puts the replies where the parent finds them.

Messages come with the number of a slot, memory that only this worker and the parent map. The parent writes
the small records and the clients' states into it; once they are read, the replies take their place. Large
vectors of replies are handed over where they lie. Mostly it is one message at a time; several are a group,
whose clients train side by side.
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.common.serde_utils import metadata_from_proto
from flwr.proto.message_pb2 import Metadata as ProtoMetadata
from torch import Tensor

from app.messages import codec
from app.simulation import channel
from app.simulation.client import Clients, Given, explain
from app.simulation.progress import Progress
from strategies.client.side_by_side import Report
from strategies.core.errors import LetheError
from strategies.core.shared_memory import (
    SharedMemory,
    aligned,
    descriptor_of,
    private_vector,
    vector_in,
)
from strategies.core.wire import FlatRecord, Layout, twin

_MOST_HANDED = 32
"""Vectors of a header that are handed over; further ones are copied into the slot."""


@dataclass(frozen=True)
class Parcel:
    """What the last message and those after it that bring nothing have in common.

    `first` has the metadata, `names` are those of all records, `flats` name those that are broadcast with
    their numbers, `small` holds the others.
    """

    first: Message
    names: list[str]
    flats: list[tuple[str, int]]
    small: bytes
    shared: list[RecordDict] = field(default_factory=list)

    def content(self, flats: Mapping[str, FlatRecord]) -> RecordDict:
        """Return the records, of which `flats` are broadcast."""
        return codec.join(self.names, codec.load_small(self.small), flats)


@dataclass
class Worker:
    """A worker process between messages; it keeps nothing of any client.

    `connection` leads to the parent, which shares the `slots`, and sees in `progress` which client of a group
    is at work. `records` are the broadcasts that several messages have read.
    """

    connection: socket.socket
    slots: Sequence[SharedMemory]
    progress: Progress
    clients: Clients
    broadcasts: dict[int, tuple[int, Layout]] = field(default_factory=dict)
    records: dict[int, FlatRecord] = field(default_factory=dict)
    parcel: Parcel | None = None

    def run(self) -> None:
        """Serve messages until the parent is gone."""
        while True:
            try:
                header, descriptors = channel.receive(self.connection)
                answer, handed = self.serve(header, descriptors)
                channel.send(self.connection, answer, list(filter(None, map(descriptor_of, handed))))
                del answer, handed  # They are the parent's now
            except channel.Closed:
                return

    def serve(
        self, header: channel.Header, descriptors: Sequence[int]
    ) -> tuple[channel.Header, list[Tensor]]:
        """Answer the messages in a slot.

        Returns
        -------
        tuple
            The header that says where the replies are described, and the vectors of these that are handed
            over.
        """
        self._update_broadcasts(header, descriptors)
        slot = self.slots[header["slot"]]
        given = [self._read(described, slot) for described in described_in(slot, header)]
        report = Report()
        if len(given) == 1:
            answers = [self.clients.answer(given[0].own(), given[0].state)]
        else:
            faster = header["where-faster"]
            answers, report = self.clients.answer_together(given, faster, self.progress.note)
        end, replies, handed = 0, list[dict[str, Any]](), list[Tensor]()
        for (answer, new_state), each in zip(answers, given, strict=True):
            new = None if new_state == each.state else new_state
            described, end = _written(slot, end, answer, new, handed)
            replies.append(described)
        counts = {"together": report.together, "alone": dict(report.alone)}
        return {**describe(slot, end, replies), **counts, channel.DESCRIPTORS: len(handed)}, handed

    def _update_broadcasts(self, header: channel.Header, descriptors: Sequence[int]) -> None:
        for number in header["drop"]:
            os.close(self.broadcasts.pop(number)[0])
            self.records.pop(number, None)
        for (number, layout), descriptor in zip(header["new"], descriptors, strict=True):
            self.broadcasts[number] = (descriptor, codec.layout_from(layout))

    def _read(self, described: dict[str, Any], slot: SharedMemory) -> Given:
        if "names" in described:
            metadata = ProtoMetadata.FromString(_piece(slot, described["metadata"]))
            first = make_message(metadata=metadata_from_proto(metadata), content=RecordDict())
            small = _piece(slot, described["small"])
            self.parcel = Parcel(first, described["names"], described["flats"], small)
        if (parcel := self.parcel) is None:
            raise RuntimeError("a message came before any content")
        if not parcel.shared:
            flats = {name: self._shared(number) for name, number in parcel.flats}
            parcel.shared.append(parcel.content(flats))
        ids = {"message_id": described["message"], "dst_node_id": described["node"]}
        shared = twin(parcel.first, parcel.shared[0], **ids)
        return Given(shared, partial(self._own, parcel, ids), _piece(slot, described["state"]))

    def _own(self, parcel: Parcel, ids: dict[str, Any]) -> Message:
        """Return a message whose records no other has."""
        flats = {name: self._record(number) for name, number in parcel.flats}
        return twin(parcel.first, parcel.content(flats), **ids)

    def _shared(self, number: int) -> FlatRecord:
        if number not in self.records:
            self.records[number] = self._record(number)
        return self.records[number]

    def _record(self, number: int) -> FlatRecord:
        descriptor, layout = self.broadcasts[number]
        return FlatRecord(private_vector(descriptor, codec.layout_size(layout)), layout)


def describe(slot: SharedMemory, end: int, described: Sequence[dict[str, Any]]) -> channel.Header:
    """Write what describes a slot's contents behind them; return the header's part that says where."""
    text = json.dumps(described).encode()
    slot.view(end + len(text))[end : end + len(text)] = text
    return {"described": [end, len(text)]}


def described_in(slot: SharedMemory, header: channel.Header) -> list[dict[str, Any]]:
    """Return what `describe` wrote."""
    found: list[dict[str, Any]] = json.loads(_piece(slot, header["described"]))
    return found


def _written(
    slot: SharedMemory,
    start: int,
    answer: RecordDict | Error,
    new_state: bytes | None,
    handed: list[Tensor],
) -> tuple[dict[str, Any], int]:
    """Write an answer into a slot; return what describes it, and the first byte behind it."""
    if isinstance(answer, RecordDict):
        try:
            return write_reply(slot, answer, new_state, start, handed)
        except (LetheError, TypeError, ValueError) as error:
            answer = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, explain(error))
    return {"error": [answer.code, answer.reason or ""]}, start


def write_reply(
    slot: SharedMemory, content: RecordDict, new_state: bytes | None, start: int, handed: list[Tensor]
) -> tuple[dict[str, Any], int]:
    """Write a reply and the client's new state into a slot; return what describes it, and where it ends.

    The state is None if it did not change. Large vectors that can be handed over are appended to `handed`.
    """
    small, flats = codec.split(content)
    data = codec.dump_small(small)
    end = start
    described: list[tuple[str, str, int | None]] = []
    for name, record in flats.items():
        assert record.flat is not None
        begin: int | None = None
        if descriptor_of(record.flat) is not None and len(handed) < _MOST_HANDED:
            handed.append(record.flat)
        else:
            begin = aligned(end)
            end = slot.put(record.flat, begin)
        described.append((name, codec.layout_text(record.layout), begin))
    state = new_state or b""
    view = slot.view(end + len(data) + len(state))
    view[end : end + len(data)] = data
    view[end + len(data) : end + len(data) + len(state)] = state
    return {
        "names": list(content),
        "flats": described,
        "small": [end, len(data)],
        "state": None if new_state is None else [end + len(data), len(state)],
    }, end + len(data) + len(state)


def read_reply(
    slot: SharedMemory, described: dict[str, Any], handed: Iterator[int]
) -> tuple[RecordDict, bytes | None]:
    """Return a copy of a reply in a slot, and the client's new state if it changed.

    `handed` are the descriptors of the vectors that were handed over, which stay the caller's.
    """
    flats: dict[str, FlatRecord] = {}
    for name, text, start in described["flats"]:
        layout = codec.layout_from(text)
        size = codec.layout_size(layout)
        flat = vector_in(next(handed), size) if start is None else slot.take(size, start)
        flats[name] = FlatRecord(flat, layout, unshared=True)
    content = codec.join(described["names"], codec.load_small(_piece(slot, described["small"])), flats)
    return content, None if described["state"] is None else _piece(slot, described["state"])


def _piece(slot: SharedMemory, extent: Sequence[int]) -> bytes:
    start, length = extent
    return bytes(slot.view(start + length)[start : start + length])

"""One worker process: takes a message, runs the client, puts the reply where the parent finds it.

Every message comes with the number of a slot, memory that only this worker and the parent map. The parent
writes the small records and the client's state into it; once they are read, the reply takes their place.
"""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from app.messages import codec
from app.simulation import channel
from app.simulation.client import Clients, explain
from app.simulation.memory import SharedMemory, aligned, private_vector
from strategies.core.errors import LetheError
from strategies.core.wire import FlatRecord, Layout


@dataclass
class Worker:
    """A worker process between messages; it keeps nothing of any client.

    `connection` leads to the parent, which shares the `slots`.
    """

    connection: socket.socket
    slots: Sequence[SharedMemory]
    clients: Clients
    broadcasts: dict[int, tuple[int, Layout]] = field(default_factory=dict)

    def run(self) -> None:
        """Serve messages until the parent is gone."""
        while True:
            try:
                header, descriptors = channel.receive(self.connection)
                channel.send(self.connection, self.serve(header, descriptors))
            except channel.Closed:
                return

    def serve(self, header: channel.Header, descriptors: Sequence[int]) -> channel.Header:
        """Answer one message; return the header of the reply."""
        self._update_broadcasts(header, descriptors)
        slot = self.slots[header["slot"]]
        message, state = self._read(header, slot)
        answer, new_state = self.clients.answer(message, state)
        if isinstance(answer, RecordDict):
            try:
                return write_reply(slot, answer, None if new_state == state else new_state)
            except (LetheError, TypeError, ValueError) as error:
                answer = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, explain(error))
        return {"error": [answer.code, answer.reason or ""]}

    def _update_broadcasts(self, header: channel.Header, descriptors: Sequence[int]) -> None:
        for number in header["drop"]:
            os.close(self.broadcasts.pop(number)[0])
        for (number, layout), descriptor in zip(header["new"], descriptors, strict=True):
            self.broadcasts[number] = (descriptor, codec.layout_from(layout))

    def _read(self, header: channel.Header, slot: SharedMemory) -> tuple[Message, bytes]:
        middle, end = header["message"], header["message"] + header["state"]
        data = slot.view(end)
        message = message_from_proto(ProtoMessage.FromString(bytes(data[:middle])))
        flats = {name: self._record(number) for name, number in header["flats"]}
        message.content = codec.join(header["names"], message.content, flats)
        return message, bytes(data[middle:end])

    def _record(self, number: int) -> FlatRecord:
        descriptor, layout = self.broadcasts[number]
        return FlatRecord(private_vector(descriptor, codec.layout_size(layout)), layout)


def write_reply(slot: SharedMemory, content: RecordDict, new_state: bytes | None) -> channel.Header:
    """Overwrite a slot with a reply and the client's new state; return the header that describes it.

    The state is None if it did not change.
    """
    small, flats = codec.split(content)
    data = codec.dump(small)
    end = 0
    described: list[tuple[str, str, int]] = []
    for name, record in flats.items():
        assert record.flat is not None
        start = aligned(end)
        end = slot.put(record.flat, start)
        described.append((name, codec.layout_text(record.layout), start))
    state = new_state or b""
    view = slot.view(end + len(data) + len(state))
    view[end : end + len(data)] = data
    view[end + len(data) : end + len(data) + len(state)] = state
    return {
        "names": list(content),
        "flats": described,
        "small": [end, len(data)],
        "state": None if new_state is None else [end + len(data), len(state)],
    }


def read_reply(slot: SharedMemory, header: channel.Header) -> tuple[RecordDict, bytes | None]:
    """Return a copy of the reply in a slot, and the client's new state if it changed."""
    flats: dict[str, FlatRecord] = {}
    for name, text, start in header["flats"]:
        layout = codec.layout_from(text)
        flats[name] = FlatRecord(slot.take(codec.layout_size(layout), start), layout)
    content = codec.join(header["names"], codec.load(_piece(slot, header["small"])), flats)
    return content, None if header["state"] is None else _piece(slot, header["state"])


def _piece(slot: SharedMemory, extent: tuple[int, int]) -> bytes:
    start, length = extent
    return bytes(slot.view(start + length)[start : start + length])

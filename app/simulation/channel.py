"""Headers between processes: a length, then JSON, with file descriptors beside them.

A header stays within a few kilobytes, far below a socket's buffer, so sending one never blocks; large content
goes through shared memory.
"""

import json
import socket
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

Header = dict[str, Any]
Received = tuple[Header, list[int]]
"""A header, and the descriptors that came with it."""
DESCRIPTORS = "descriptors"
"""In a header that a `Reader` reads: how many descriptors come with it."""

_LENGTH = struct.Struct("<I")
_MAX_DESCRIPTORS = 64
_AT_ONCE = 2**16
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Closed(Exception):
    """The process at the other end is gone."""


def send(connection: socket.socket, header: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one header over a blocking local stream socket, with duplicates of open file descriptors.

    Raises
    ------
    Closed
        If the other end is gone.
    """
    body = json.dumps(header).encode()
    data = _LENGTH.pack(len(body)) + body
    try:
        sent = socket.send_fds(connection, [data], descriptors) if descriptors else 0
        connection.sendall(data[sent:])
    except OSError as error:
        raise Closed from error


def receive(connection: socket.socket) -> Received:
    """Wait for one header; return it with the descriptors that came along, which the caller must close.

    Raises
    ------
    Closed
        If the sender is gone.
    """
    try:
        length, descriptors, *_ = socket.recv_fds(connection, _LENGTH.size, _MAX_DESCRIPTORS, _CLOSE_ON_EXEC)
        length += _rest(connection, _LENGTH.size - len(length))
        body = _rest(connection, _LENGTH.unpack(length)[0])
    except OSError as error:
        raise Closed from error
    return json.loads(body), descriptors


class Reader:
    """Headers from a socket, as many at a time as have arrived, and the descriptors that come with them.

    A header says under `DESCRIPTORS` how many are its own; whoever takes it closes them.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._data = bytearray()
        self._descriptors: deque[int] = deque()

    def read(self) -> list[Received]:
        """Wait for some bytes; return the headers that are whole by then, with their descriptors.

        Raises
        ------
        Closed
            If the sender is gone.
        """
        try:
            chunk, descriptors, *_ = socket.recv_fds(
                self._connection, _AT_ONCE, _MAX_DESCRIPTORS, _CLOSE_ON_EXEC
            )
        except OSError as error:
            raise Closed from error
        if not chunk:
            raise Closed
        self._data += chunk
        self._descriptors.extend(descriptors)
        headers, start = list[Received](), 0
        while (body := start + _LENGTH.size) <= len(self._data):
            end = body + _LENGTH.unpack_from(self._data, start)[0]
            if end > len(self._data):
                break
            header = json.loads(self._data[body:end])
            own = [self._descriptors.popleft() for _ in range(header.get(DESCRIPTORS, 0))]
            headers.append((header, own))
            start = end
        del self._data[:start]
        return headers


def _rest(connection: socket.socket, missing: int) -> bytes:
    chunks: list[bytes] = []
    while missing:
        chunk = connection.recv(missing)
        if not chunk:
            raise Closed
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)

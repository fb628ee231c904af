"""Models that travel between machines as one array each.

Flower sends every array of a record as objects of its own, and each object as a request of its own, on each
of the four legs of a message's way: the 62 arrays of a ResNet-18 take 128 requests on each. Here a record
of float32 arrays becomes a record of one vector, whose name says which entries it holds: half a dozen
requests, and one more for each few megabytes. A client packs its answer if the question came packed, so that
Flower's own strategies are answered in Flower's own form.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import final

import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict

from app.messages.codec import as_flat, layout_from, layout_text
from strategies.core.wire import FlatArray, FlatRecord, Layout
from strategies.server.grids import GridWrapper

_PREFIX = "packed:"


def pack(content: RecordDict) -> RecordDict:
    """Return a content whose records of two or more float32 arrays hold one array each."""
    return RecordDict({name: _packed(r) if isinstance(r, ArrayRecord) else r for name, r in content.items()})


def unpack(content: RecordDict) -> RecordDict:
    """Return an unpacked content; a record that is only named like a packed one stays as it is."""
    found = {name: _unpacked(r) if isinstance(r, ArrayRecord) else None for name, r in content.items()}
    return RecordDict({name: found[name] or record for name, record in content.items()})


def is_packed(content: RecordDict) -> bool:
    """Return whether one of the records is packed."""
    return any(_text(record) for record in content.array_records.values())


def packed(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    """Unpack a packed message, and pack the answer to it; a mod of the ClientApp."""
    if not message.has_content() or not is_packed(message.content):
        return call_next(message, context)
    message.content = unpack(message.content)
    reply = call_next(message, context)
    if reply.has_content():
        reply.content = pack(reply.content)
    return reply


def _packed(record: ArrayRecord) -> ArrayRecord:
    flat = as_flat(record) if len(record) > 1 else None
    if flat is None or flat.flat is None:
        return record
    return ArrayRecord({_PREFIX + layout_text(flat.layout): FlatArray(flat.flat)})


def _text(record: ArrayRecord) -> str:
    """Return what a packed record says of its entries; empty for any other record."""
    name = next(iter(record), "") if len(record) == 1 else ""
    return name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else ""


def _unpacked(record: ArrayRecord) -> FlatRecord | None:
    """Return the entries of a packed record; None for any other record."""
    if not (text := _text(record)):
        return None
    try:
        layout, vector = layout_from(text), next(iter(record.values())).numpy()
        fits = _is_layout(layout) and vector.shape == (layout.size,) and vector.dtype == "float32"
    except (ValueError, TypeError, OSError, EOFError, RecursionError):
        return None  # The text or the array is malformed: the receiver of the record must see that
    if not fits:
        return None
    return FlatRecord(torch.from_numpy(vector if vector.flags.writeable else vector.copy()), layout)


def _is_layout(layout: Layout) -> bool:
    names = all(isinstance(name, str) for name in layout.names) and len(set(layout.names)) == len(
        layout.names
    )
    sizes = all(type(size) is int and size >= 0 for shape in layout.shapes for size in shape)
    return names and sizes and len(layout.names) == len(layout.shapes)


@final
class PackingGrid(GridWrapper):
    """A grid whose messages travel packed."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push packed messages; the given messages are not changed."""
        return self._grid.push_messages(list(_all_packed(messages)))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull replies and unpack them."""
        return _all_unpacked(self._grid.pull_messages(message_ids))


def _all_packed(messages: Iterable[Message]) -> Iterator[Message]:
    """Yield packed messages; a record that several share is packed, and so sent, once."""
    done: dict[int, tuple[ArrayRecord, ArrayRecord]] = {}
    for message in messages:
        records = {id(record): record for record in message.content.array_records.values()}
        done |= {key: (record, _packed(record)) for key, record in records.items() if key not in done}
        content = {n: done[id(r)][1] if id(r) in records else r for n, r in message.content.items()}
        metadata = message.metadata
        yield Message(
            RecordDict(content),
            metadata.dst_node_id,
            metadata.message_type,
            ttl=metadata.ttl,
            group_id=metadata.group_id,
        )


def _all_unpacked(messages: Iterable[Message]) -> Iterator[Message]:
    for message in messages:
        if message.has_content():
            message.content = unpack(message.content)
        yield message

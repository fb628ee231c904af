"""Records between processes: models as float32 vectors, everything else in Flower's own protobufs."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.app.message.recorddict import RecordType
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from app.messages.content import Content
from strategies.core.wire import FlatRecord, Layout, filled, flat_of, layout_of

_KINDS: Mapping[str, type[MetricRecord] | type[ConfigRecord]] = {"m": MetricRecord, "c": ConfigRecord}
_LARGEST_INTEGER = 2**63  # Of Flower's own protobufs, which refuse a larger one


def dump(content: RecordDict) -> bytes:
    """Return a record dictionary as bytes; no bytes for an empty one."""
    proto: bytes = recorddict_to_proto(content).SerializeToString(deterministic=True)
    return proto


def load(data: bytes) -> RecordDict:
    """Return the record dictionary of `dump`.

    Raises
    ------
    ValueError
        If the bytes are not what `dump` wrote.
    """
    try:
        return recorddict_from_proto(ProtoRecordDict.FromString(data))
    except DecodeError as error:
        raise ValueError(str(error)) from error
    except AttributeError as error:  # Of Flower, which asks what type a value is that has none
        raise ValueError("a record holds a value that has no type") from error


def dump_small(content: RecordDict) -> bytes:
    """Return records as bytes for `load_small`: JSON, which is fast, if that keeps every value, or `dump`."""
    plain = {name: _plain(record) for name, record in content.items()}
    return dump(content) if None in plain.values() else b"{" + json.dumps(plain).encode()


def load_small(data: bytes) -> RecordDict:
    """Return the record dictionary of `dump_small`."""
    if not data.startswith(b"{"):  # The first byte of a protobuf of records is that of a field
        return load(data)
    return Content({name: _record(*described) for name, described in json.loads(data[1:]).items()})


def _record(kind: str, values: dict[str, Any]) -> RecordType:
    return filled(_KINDS[kind](), values)


def _plain(record: RecordType) -> tuple[str, dict[str, Any]] | None:
    """Return a record's kind and values if JSON keeps them; None if not, or if Flower would not send them."""
    if isinstance(record, ArrayRecord) or not all(map(_is_plain, record.values())):
        return None
    if not all(map(_is_text, record)):
        return None
    return ("m" if isinstance(record, MetricRecord) else "c"), dict(record.items())


def _is_plain(value: object) -> bool:
    kind = type(value)
    if kind is list:
        return all(map(_is_plain, value))  # type: ignore[call-overload]
    if kind is int:
        return -_LARGEST_INTEGER <= value < _LARGEST_INTEGER  # type: ignore[operator]
    return kind is float or kind is bool or _is_text(value)


def _is_text(value: object) -> bool:
    return type(value) is str and value.isascii()


def as_flat(record: RecordType) -> FlatRecord | None:
    """Return a record of float32 arrays as one vector; None for any other record, which travels unchanged."""
    if isinstance(record, FlatRecord) and record.flat is not None:
        return record if record.flat.numel() else None
    if not isinstance(record, ArrayRecord) or not record:
        return None
    if any(a.dtype != "float32" or a.stype != "numpy.ndarray" for a in record.values()):
        return None
    return _flattened(record)


def _flattened(record: ArrayRecord) -> FlatRecord | None:
    layout = layout_of(record)
    try:
        flat = flat_of(record, layout)
    except ValueError:
        return None  # Its bytes do not fit its header: the receiver of the record must see that
    return FlatRecord(flat, layout) if flat.numel() == layout.size > 0 else None


def split(content: RecordDict) -> tuple[RecordDict, dict[str, FlatRecord]]:
    """Return the records that travel as protobufs, and those that travel as vectors."""
    flats = {name: flat for name, record in content.items() if (flat := as_flat(record)) is not None}
    return RecordDict({name: r for name, r in content.items() if name not in flats}), flats


def join(names: Sequence[str], small: RecordDict, flats: Mapping[str, FlatRecord]) -> RecordDict:
    """Return the record dictionary that was split, its records in the order of `names`."""
    return Content({name: flats[name] if name in flats else small[name] for name in names})


@lru_cache(maxsize=64)
def layout_text(layout: Layout) -> str:
    """Return a layout as text."""
    return json.dumps([layout.names, layout.shapes])


@lru_cache(maxsize=64)
def layout_from(text: str) -> Layout:
    """Return the layout of `layout_text`."""
    names, shapes = json.loads(text)
    return Layout(tuple(names), tuple(tuple(shape) for shape in shapes))


@lru_cache(maxsize=64)
def layout_size(layout: Layout) -> int:
    """Return `layout.size`, which is asked for once per message."""
    return sum(math.prod(shape) for shape in layout.shapes)

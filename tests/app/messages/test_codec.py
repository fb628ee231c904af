"""app/messages/codec.py: bytes that are no record dictionary are one error, however they are wrong."""

import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.proto.recorddict_pb2 import ConfigRecord as ProtoConfigRecord, RecordDict as ProtoRecordDict

from app.messages.codec import dump, load


def test_records_are_read_back() -> None:
    content = RecordDict({"a": ConfigRecord({"b": 1})})
    assert load(dump(content)) == content


def test_a_value_without_a_type_is_refused() -> None:
    """As one damaged byte leaves it: well-formed for protobuf, and nothing that Flower writes."""
    untyped = ProtoConfigRecord(items=[ProtoConfigRecord.Item(key="b")])
    items = [ProtoRecordDict.Item(key="a", config_record=untyped)]
    with pytest.raises(ValueError, match="a record holds a value that has no type"):
        load(ProtoRecordDict(items=items).SerializeToString())


def test_what_is_no_protobuf_is_refused() -> None:
    with pytest.raises(ValueError, match="Error parsing message"):
        load(b"\xff")

"""A model crosses machines as one array and arrives as it was, and nothing forged passes."""

import json

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from hypothesis import given, settings

from app import client_app
from app.messages.packing import PackingGrid, is_packed, pack, packed, unpack
from strategies.core import wire
from strategies.core.wire import FlatRecord
from tests.strategies.core.test_wire import SHAPES, flat_record, numbered, plain_record
from tests.strategies.fakes import FakeGrid

CONTEXT = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={}, series_id=1)


def sent(content: RecordDict) -> RecordDict:
    """Return a content as it arrives over the network, object by object."""
    stored = {i: each.deflate() for i, each in get_all_nested_objects(content).items()}
    received = inflate_object_from_contents(content.object_id, stored)
    assert isinstance(received, RecordDict)
    return received


def model(record: ArrayRecord) -> RecordDict:
    """Return a content with a model and a setting."""
    return RecordDict({wire.ARRAYS: record, wire.CONFIG: ConfigRecord({"round": 3})})


def numbers(content: RecordDict) -> list[tuple[str, tuple[int, ...], list[float]]]:
    """Return name, shape and values of each entry of the model in a content."""
    state = wire.state_of(content.array_records[wire.ARRAYS])
    return [(name, tuple(t.shape), t.flatten().tolist()) for name, t in state.items()]


SAME = [("w", (2, 2), [1.0, 2.0, 3.0, 4.0]), ("b", (2,), [5.0, 6.0])]


def message(content: RecordDict) -> Message:
    FakeGrid({})  # Gives messages the identity that Flower's processes give them
    return Message(content, 1, wire.TRAIN)


def echo(message: Message) -> Message:
    return Message(message.content, reply_to=message)


@pytest.mark.parametrize("record", [flat_record(), plain_record()])
def test_a_model_of_two_arrays_takes_two_objects_less_and_arrives_as_it_was(record: ArrayRecord) -> None:
    """Each array is two objects, itself and its bytes; record, config and their dictionary are three."""
    content = model(record)
    assert len(get_all_nested_objects(content)) == 4 + 3
    assert len(get_all_nested_objects(pack(content))) == 2 + 3
    arrived = unpack(sent(pack(content)))
    assert list(arrived) == list(content)
    assert numbers(arrived) == SAME
    assert isinstance(arrived[wire.ARRAYS], FlatRecord)
    assert arrived[wire.CONFIG] == content[wire.CONFIG]


@settings(deadline=None)
@given(SHAPES)
def test_any_model_arrives_as_it_was(shapes: list[tuple[int, ...]]) -> None:
    layout, flat = numbered(shapes)
    arrived = unpack(sent(pack(model(FlatRecord(flat, layout))))).array_records[wire.ARRAYS]
    assert wire.layout_of(arrived) == layout
    assert wire.flat_of(arrived, layout).equal(flat)


def test_other_records_travel_as_they_are() -> None:
    """A single array gains nothing, and what is not float32 would not come back as it was."""
    single = ArrayRecord({"w": Array(np.ones(3, np.float32))})
    whole = ArrayRecord({"w": Array(np.ones(3, np.float32)), "n": Array(np.ones(3, np.int64))})
    content = RecordDict({"single": single, "whole": whole})
    assert not is_packed(content)
    assert pack(content) == unpack(content) == content
    assert pack(pack(model(flat_record()))) == pack(model(flat_record()))


NAME = next(iter(pack(model(flat_record())).array_records[wire.ARRAYS]))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("packed:", Array(np.ones(6, np.float32))),
        ("packed:{", Array(np.ones(6, np.float32))),
        ("packed:" + "[" * 100_000, Array(np.ones(6, np.float32))),
        ("packed:[1, 2]", Array(np.ones(6, np.float32))),
        (f"packed:{json.dumps([['w', 'w'], [[3], [3]]])}", Array(np.ones(6, np.float32))),
        (f"packed:{json.dumps([['w'], [[3], [3]]])}", Array(np.ones(6, np.float32))),
        (f"packed:{json.dumps([[1], [[6]]])}", Array(np.ones(6, np.float32))),
        (f"packed:{json.dumps([['w'], [[-2, -3]]])}", Array(np.ones(6, np.float32))),
        (f"packed:{json.dumps([['w'], [[6.0]]])}", Array(np.ones(6, np.float32))),
        (f"packed:{json.dumps([['w'], [['a']]])}", Array(np.ones(6, np.float32))),
        (NAME, Array(np.ones(5, np.float32))),
        (NAME, Array(np.ones((2, 3), np.float32))),
        (NAME, Array(np.ones(6, np.int64))),
        (NAME, Array("float32", (6,), "numpy.ndarray", b"no array")),
        (NAME, Array("float32", (6,), "pickle", b"")),
    ],
)
def test_what_claims_to_be_packed_and_is_not_stays_as_it_is(name: str, array: Array) -> None:
    content = model(ArrayRecord({name: array}))
    assert unpack(content) == content


def test_a_packed_question_is_answered_packed_and_the_app_sees_neither() -> None:
    seen: list[object] = []

    def work(message: Message, context: Context) -> Message:
        seen.append(numbers(message.content))
        return Message(model(plain_record()), reply_to=message)

    answer = packed(message(pack(model(flat_record()))), CONTEXT, work)
    assert is_packed(answer.content)
    assert numbers(unpack(answer.content)) == SAME
    assert not is_packed(packed(message(model(flat_record())), CONTEXT, work).content)
    assert seen == [SAME] * 2


def test_the_client_app_answers_so() -> None:
    assert packed in client_app.app._mods


def test_an_error_is_answered_as_it_is() -> None:
    question = message(pack(model(flat_record())))
    answer = packed(question, CONTEXT, lambda m, context: Message(Error(1, "no data"), reply_to=m))
    assert answer.error.reason == "no data"


def test_the_grid_packs_what_it_pushes_and_unpacks_what_it_pulls() -> None:
    """Both clients' copies of one model are one packed record, and the messages given stay as they were."""
    behind = FakeGrid({1: echo, 2: echo})
    grid = PackingGrid(behind)
    record = flat_record()
    given_ = [Message(model(record), node, wire.TRAIN, ttl=60.0, group_id="7") for node in (1, 2)]
    ids = list(grid.push_messages(given_))
    replies = [*grid.pull_messages(ids), *grid.pull_messages(ids)]  # One at a time
    first, second = (m.content.array_records[wire.ARRAYS] for m in behind.sent)
    assert first is second
    assert all(is_packed(m.content) for m in behind.sent)
    assert [(m.metadata.ttl, m.metadata.group_id) for m in behind.sent] == [(60.0, "7")] * 2
    assert [numbers(m.content) for m in replies] == [SAME] * 2
    assert all(m.content.array_records[wire.ARRAYS] is record for m in given_)


def test_the_grid_sends_and_receives_too() -> None:
    grid = PackingGrid(FakeGrid({1: echo}))
    (reply,) = grid.send_and_receive([message(model(flat_record()))], timeout=1.0)
    assert numbers(reply.content) == SAME


def test_a_reply_without_content_passes() -> None:
    broken = FakeGrid({1: lambda message: Message(Error(1, "gone"), reply_to=message)})
    grid = PackingGrid(broken)
    (reply,) = grid.pull_messages(grid.push_messages([message(model(flat_record()))]))
    assert reply.has_error()


def test_packing_changes_no_number() -> None:
    flat = torch.tensor([0.1, float("nan"), float("inf"), -0.0, 1e-40, 3.0])
    record = FlatRecord(flat, wire.layout_of(flat_record()))
    arrived = unpack(sent(pack(model(record)))).array_records[wire.ARRAYS]
    got = wire.flat_of(arrived, wire.layout_of(arrived))
    assert got.numpy().tobytes() == flat.numpy().tobytes()

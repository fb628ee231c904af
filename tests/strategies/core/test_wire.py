"""strategies/core/wire.py: flat records are Flower's records, to Flower and over the network."""

from io import BytesIO

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given, settings, strategies as st
from torch import nn

from strategies.core import wire
from strategies.core.wire import FlatArray, FlatRecord, Layout, State

LAYOUT = Layout(("w", "b"), ((2, 2), (2,)))
FLAT = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]

SHAPES = st.lists(st.lists(st.integers(0, 3), max_size=3).map(tuple), max_size=4)
CLIENT_IDS = st.integers(0, 200).map(str) | st.text(max_size=4)


def state() -> State:
    """Return w = [[1, 2], [3, 4]], an integer buffer, and b = [5, 6]."""
    return {
        "w": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "num_batches_tracked": torch.tensor(7),
        "b": torch.tensor([5.0, 6.0]),
    }


def flat_record() -> FlatRecord:
    """Return 1 … 6 as w and b."""
    return FlatRecord(torch.tensor(FLAT), LAYOUT)


def plain_record() -> ArrayRecord:
    """Return the same numbers as Flower's own record."""
    return ArrayRecord({name: value for name, value in state().items() if name in LAYOUT.names})


def numbered(shapes: list[tuple[int, ...]]) -> tuple[Layout, torch.Tensor]:
    """Return a layout of entries e0, e1, … and the numbers 0, 1, … that fill it."""
    layout = Layout(tuple(f"e{i}" for i in range(len(shapes))), tuple(shapes))
    return layout, torch.arange(sum(int(np.prod(shape)) for shape in shapes), dtype=torch.float32)


@pytest.fixture
def instruction(monkeypatch: pytest.MonkeyPatch) -> Message:
    """Return a message of the server, node 9, to node 5."""
    for name, value in {"_run_id": 1, "_task_id": 1, "_node_id": 9}.items():
        monkeypatch.setattr(TaskIdentity, name, value)
    return Message(RecordDict(), dst_node_id=5, message_type=wire.TRAIN)


def sent(content: RecordDict) -> RecordDict:
    """Return a content as it arrives over the network."""
    return recorddict_from_proto(recorddict_to_proto(content))


# by hand


def test_layout_by_hand() -> None:
    """Four weights, then two biases; the integer buffer between them is left out."""
    assert Layout.of(state()) == LAYOUT
    assert (LAYOUT.sizes, LAYOUT.size) == ((4, 2), 6)
    assert LAYOUT.flatten(state()).tolist() == FLAT
    assert LAYOUT.unflatten(torch.tensor(FLAT))["b"].tolist() == [5.0, 6.0]


def test_flatten_copies_and_unflatten_views() -> None:
    """A flat vector is independent of the state it came from; entries write through to the vector."""
    source = {"w": torch.zeros(2, requires_grad=True)}
    flat = Layout.of(source).flatten(source)
    assert not flat.requires_grad
    Layout.of(source).unflatten(flat)["w"][1] = 9.0
    assert flat.tolist() == [0.0, 9.0]
    assert source["w"].tolist() == [0.0, 0.0]


def test_flatten_makes_float32() -> None:
    """Half and double precision alike."""
    mixed = {"a": torch.ones(1, dtype=torch.float64), "b": torch.ones(1, dtype=torch.bfloat16)}
    assert Layout.of(mixed).flatten(mixed).dtype == torch.float32


def test_records_bytes_by_hand() -> None:
    """Arrays 6·4; metrics 12 + 8 and 12 + 2·8; config 9 + 2 and 4 + 3 and 1 + 8: 24 + 48 + 27 = 99."""
    metrics = MetricRecord({wire.NUM_EXAMPLES: 5, wire.LABEL_COUNTS: [2, 3]})
    config = ConfigRecord({wire.CLIENT_ID: "ab", wire.MASK: b"xyz", "t": True})
    for arrays in (flat_record(), plain_record()):
        content = RecordDict({wire.ARRAYS: arrays, wire.METRICS: metrics, wire.CONFIG: config})
        assert wire.records_bytes(content) == 99
    assert wire.records_bytes(RecordDict()) == 0


def test_records_bytes_of_other_types() -> None:
    """Three float64 are 24 bytes; a replaced entry counts at its own size: 4·4 + 3·8."""
    doubles = Array(np.zeros(3))
    assert wire.records_bytes(RecordDict({"a": ArrayRecord({"x": doubles})})) == 24
    record = flat_record()
    record["b"] = doubles
    assert wire.records_bytes(RecordDict({"a": record})) == 40


def test_client_order_by_hand() -> None:
    """Numbers by value, then names by text; −1 is a name."""
    ids = ["b", "10", "hospital-a", "9", "a", "-1", "0", ""]
    expected = ["0", "9", "10", "", "-1", "a", "b", "hospital-a"]
    assert sorted(ids, key=wire.client_sort_key) == expected


# against Flower's own


def test_flat_array_is_flowers_array() -> None:
    """Type, shape, encoding, bytes and numbers are those of `Array` made from the same numbers."""
    tensor = state()["w"]
    flat, plain = FlatArray(tensor), Array(tensor.numpy())
    assert isinstance(flat, Array)
    assert (flat.dtype, flat.shape, flat.stype) == (plain.dtype, plain.shape, plain.stype)
    assert flat.data == plain.data
    np.testing.assert_array_equal(flat.numpy(), plain.numpy())


def test_flat_array_data_loads() -> None:
    """The bytes are a file of numpy, the same object of bytes every time."""
    array = FlatArray(state()["w"])
    np.testing.assert_array_equal(np.load(BytesIO(array.data), allow_pickle=False), state()["w"].numpy())
    assert array.data is array.data


def test_flat_array_is_a_read_only_view() -> None:
    """No copy of the tensor is made, and nobody can write to it through the array."""
    tensor = state()["w"]
    view = FlatArray(tensor).numpy()
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 9.0
    tensor[0, 0] = 8.0
    assert view[0, 0] == 8.0


@pytest.mark.parametrize("record", [flat_record(), wire.record_of(state()), plain_record()])
def test_over_the_network(record: ArrayRecord) -> None:
    """Every kind of record arrives as Flower's own, with the same names, shapes and numbers."""
    arrived = sent(RecordDict({wire.ARRAYS: record})).array_records[wire.ARRAYS]
    assert type(arrived) is ArrayRecord
    assert arrived == plain_record()
    assert wire.layout_of(arrived) == LAYOUT
    assert wire.flat_of(arrived, LAYOUT).tolist() == FLAT


@settings(deadline=None)
@given(SHAPES)
def test_any_layout_over_the_network(shapes: list[tuple[int, ...]]) -> None:
    """Scalars, empty entries and no entries at all come back as they were."""
    layout, flat = numbered(shapes)
    content = sent(RecordDict({wire.ARRAYS: FlatRecord(flat, layout)}))
    arrived = content.array_records[wire.ARRAYS]
    assert wire.layout_of(arrived) == layout
    assert wire.flat_of(arrived, layout).equal(flat)
    assert layout.flatten(wire.state_of(arrived)).equal(flat)


def test_to_flowers_own_forms() -> None:
    """What Flower's strategies call on a record works on a flat one."""
    record = flat_record()
    for got, expected in zip(record.to_numpy_ndarrays(), plain_record().to_numpy_ndarrays(), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert record.count_bytes() == plain_record().count_bytes()
    assert list(record) == ["w", "b"]


def test_a_flat_record_crosses_a_deployed_federation() -> None:
    """A SuperLink stores objects by the names of Flower's own types, and refuses any other."""
    content = RecordDict({wire.ARRAYS: flat_record()})
    stored = {i: each.deflate() for i, each in get_all_nested_objects(content).items()}
    received = inflate_object_from_contents(content.object_id, stored)
    assert isinstance(received, RecordDict)
    assert wire.flat_of(received.array_records[wire.ARRAYS], LAYOUT).tolist() == FLAT


def test_a_copy_made_by_flower_is_an_ordinary_record_of_the_same_arrays() -> None:
    """It has no flat vector, but a layout."""
    copied = flat_record().copy()
    assert copied.layout == LAYOUT
    assert wire.flat_of(copied, LAYOUT).tolist() == FLAT


# flat or not


def test_flat_of_is_zero_copy() -> None:
    """A flat record gives its own buffer, whose memory its entries and its state share."""
    flat = torch.tensor(FLAT)
    record = FlatRecord(flat, LAYOUT)
    assert wire.flat_of(record, LAYOUT) is flat
    assert wire.state_of(record)["w"].data_ptr() == flat.data_ptr()
    assert np.shares_memory(record["b"].numpy(), flat.numpy())


def test_flat_of_other_types_is_float32() -> None:
    """A client that answers in float64 is read as float32, in the layout's order, not the record's."""
    doubles = {"b": Array(np.array([5.0, 6.0])), "w": Array(np.array([[1.0, 2.0], [3.0, 4.0]]))}
    flat = wire.flat_of(ArrayRecord(doubles), LAYOUT)
    assert (flat.dtype, flat.tolist()) == (torch.float32, FLAT)


def test_replaced_entry_is_read() -> None:
    """A record with another b is no longer flat; the new b arrives, and the old buffer is as it was."""
    flat = torch.tensor(FLAT)
    record = FlatRecord(flat, LAYOUT)
    record["b"] = Array(np.array([7.0, 8.0], dtype=np.float32))
    assert record.flat is None
    assert wire.flat_of(record, LAYOUT).tolist() == [1.0, 2.0, 3.0, 4.0, 7.0, 8.0]
    assert wire.state_of(record)["b"].tolist() == [7.0, 8.0]
    assert flat.tolist() == FLAT


def test_deleted_entry_is_missed() -> None:
    """A record without b is no longer flat, and does not fit."""
    record = flat_record()
    del record["b"]
    assert record.flat is None
    assert wire.layout_of(record) == Layout(("w",), ((2, 2),))
    with pytest.raises(ValueError, match=r"^wrong keys: missing \['b'\], unexpected \[\]$"):
        wire.flat_of(record, LAYOUT)


def test_copy() -> None:
    """A copy holds the same numbers; an entry replaced in it is not replaced in the original."""
    record = flat_record()
    copied = record.copy()
    assert wire.flat_of(copied, LAYOUT).tolist() == FLAT
    copied["b"] = Array(np.zeros(2, dtype=np.float32))
    assert wire.flat_of(copied, LAYOUT).tolist() == [1.0, 2.0, 3.0, 4.0, 0.0, 0.0]
    assert wire.flat_of(record, LAYOUT).tolist() == FLAT


def test_load_flat_fills_a_model() -> None:
    """Parameters and floating buffers are replaced; the count of batches is left."""
    model = nn.BatchNorm1d(2)
    layout = Layout.of(model.state_dict())
    assert layout.names == ("weight", "bias", "running_mean", "running_var")
    wire.load_flat(model, torch.arange(8.0), layout)
    assert layout.flatten(model.state_dict()).tolist() == list(range(8))
    assert int(model.state_dict()["num_batches_tracked"]) == 0


# properties


@settings(deadline=None)
@given(SHAPES)
def test_flatten_inverts_unflatten(shapes: list[tuple[int, ...]]) -> None:
    """Any layout, there and back."""
    layout, flat = numbered(shapes)
    assert layout.flatten(layout.unflatten(flat)).equal(flat)
    assert Layout.of(layout.unflatten(flat)) == layout
    assert layout.difference(FlatRecord(flat, layout)) is None


@settings(deadline=None)
@given(st.lists(CLIENT_IDS, unique=True).flatmap(lambda ids: st.tuples(st.just(ids), st.permutations(ids))))
def test_client_order_is_total(orders: tuple[list[str], list[str]]) -> None:
    """Different ids never tie, so the order they came in is irrelevant."""
    first, second = (sorted(ids, key=wire.client_sort_key) for ids in orders)
    assert first == second


# replies


def test_reply_carries_the_client_id(instruction: Message) -> None:
    """An answer names the client, goes back to where the message came from, and holds what was given."""
    reply = wire.reply_to(
        instruction, "hospital-a", {wire.NUM_EXAMPLES: 3}, flat_record(), {wire.DETAIL: "x"}
    )
    assert (reply.metadata.src_node_id, reply.metadata.dst_node_id) == (5, 9)
    assert reply.metadata.message_type == wire.TRAIN
    arrived = sent(reply.content)
    assert wire.client_id_in(arrived) == "hospital-a"
    assert dict(arrived.config_records[wire.CONFIG]) == {wire.CLIENT_ID: "hospital-a", wire.DETAIL: "x"}
    assert dict(arrived.metric_records[wire.METRICS]) == {wire.NUM_EXAMPLES: 3}
    assert wire.flat_of(arrived.array_records[wire.ARRAYS], LAYOUT).tolist() == FLAT


def test_reply_without_arrays(instruction: Message) -> None:
    """Numbers alone, a tuple as a list."""
    reply = wire.reply_to(instruction, "0", {wire.LABEL_COUNTS: (1, 2)})
    assert list(reply.content) == [wire.METRICS, wire.CONFIG]
    assert reply.content.metric_records[wire.METRICS][wire.LABEL_COUNTS] == [1, 2]


def test_no_client_id() -> None:
    """A stranger's reply claims none, or something that is no text."""
    assert wire.client_id_in(RecordDict()) is None
    assert wire.client_id_in(RecordDict({wire.CONFIG: ConfigRecord({})})) is None
    assert wire.client_id_in(RecordDict({wire.CONFIG: ConfigRecord({wire.CLIENT_ID: 3})})) is None


def test_small_readers() -> None:
    """Lists of whole numbers, scalar metrics, six digits for a text."""
    assert wire.config_list({"a": [1, 2]}, "a") == [1, 2]
    assert wire.config_list({}, "a") == []
    assert dict(wire.iter_numbers({"a": 1, "b": [1, 2], "c": 0.5})) == {"a": 1.0, "c": 0.5}
    assert wire.short_hash("") == "e3b0c4"  # SHA-256 of nothing begins e3b0c442


# errors


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"w": (2, 2)}, "wrong keys: missing ['b'], unexpected []"),
        ({"w": (2, 2), "b": (2,), "c": (1,)}, "wrong keys: missing [], unexpected ['c']"),
        ({"v": (2, 2), "b": (2,)}, "wrong keys: missing ['w'], unexpected ['v']"),
        ({"w": (4,), "b": (2,)}, "wrong shape: w is (4,), expected (2, 2)"),
        ({"w": (2, 2), "b": (3,)}, "wrong shape: b is (3,), expected (2,)"),
    ],
)
def test_differences(arrays: dict[str, tuple[int, ...]], message: str) -> None:
    """Missing, unexpected and misshapen entries are named, in plain and in flat records."""
    plain = ArrayRecord({name: Array(np.zeros(shape)) for name, shape in arrays.items()})
    for record in (plain, wire.record_of({name: torch.zeros(shape) for name, shape in arrays.items()})):
        assert LAYOUT.difference(record) == message
        with pytest.raises(ValueError, match=r"^wrong ") as error:
            wire.flat_of(record, LAYOUT)
        assert str(error.value) == message


def test_swapped_bytes_would_be_noticed() -> None:
    """An entry damaged on its way fails the comparison of the round trip."""
    damaged = sent(RecordDict({wire.ARRAYS: flat_record()})).array_records[wire.ARRAYS]
    damaged["w"] = Array(state()["w"].T.contiguous().numpy())
    assert damaged != plain_record()
    assert wire.flat_of(damaged, LAYOUT).tolist() != FLAT


def test_a_large_model_is_measured_where_its_vector_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """y = 2 x + 1 by a vector of three numbers, one of which is a buffer's; afterwards it has no memory."""
    monkeypatch.setattr("strategies.core.layout.LARGE_BYTES", 4)
    layer = torch.nn.Linear(1, 1)
    layer.register_buffer("shift", torch.zeros(1))
    layout, flat = wire.Layout.of(layer.state_dict()), torch.tensor([2.0, 1.0, 5.0])
    for _ in range(2):
        with wire.lent(layer, flat, layout), torch.no_grad():
            assert layer(torch.tensor([[3.0]])).item() == 7.0
            assert layer.weight.data_ptr() == flat.data_ptr()
            assert float(layer.shift) == 5.0
        assert layer.weight.untyped_storage().nbytes() == 4
        assert layer.weight.shape == (1, 1)
    assert flat.tolist() == [2.0, 1.0, 5.0]


def test_a_small_model_gets_the_numbers_copied() -> None:
    layer = torch.nn.Linear(1, 1)
    layout, flat = wire.Layout.of(layer.state_dict()), torch.tensor([2.0, 1.0])
    with wire.lent(layer, flat, layout):
        pass
    assert (layer.weight.item(), layer.bias.item()) == (2.0, 1.0)
    assert layer.weight.data_ptr() != flat.data_ptr()


def test_what_an_answer_says_is_as_flower_would_hold_it() -> None:
    found = wire.told("7", {"num-examples": 3, "losses": (0.5, 1.0)}, {"detail": "so", "keep": [1, 2]})
    assert found == {
        wire.METRICS: MetricRecord({"num-examples": 3, "losses": [0.5, 1.0]}),
        wire.CONFIG: ConfigRecord({wire.CLIENT_ID: "7", "detail": "so", "keep": [1, 2]}),
    }
    plain = wire.told("7", {"loss": 0.5}, {"withheld": True})
    assert plain[wire.METRICS] == MetricRecord({"loss": 0.5})
    assert plain[wire.CONFIG] == ConfigRecord({wire.CLIENT_ID: "7", "withheld": True})


@pytest.mark.parametrize("number", [True, "1", np.float32(1), None])
def test_what_is_no_number_is_no_metric_of_an_answer(number: object) -> None:
    with pytest.raises(TypeError):
        wire.told("7", {"loss": number}, {})  # type: ignore[dict-item]

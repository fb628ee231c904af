"""Large models between server and workers: handed over, not copied, and freed when they are let go."""

import gc
from pathlib import Path

import torch
from flwr.app import ConfigRecord, RecordDict

from app.simulation import LocalGrid
from strategies.core import shared_memory, wire
from strategies.core.layout import LARGE_BYTES
from strategies.core.shared_memory import descriptor_of, new_vector
from tests.app.simulation.helpers import ask, messages, model, received

SIZE = LARGE_BYTES // 4
LAYOUT = wire.Layout(("w",), ((SIZE,),))


def flat_in(message: object) -> torch.Tensor:
    record = message.content.array_records["arrays"]  # type: ignore[attr-defined]
    assert isinstance(record, wire.FlatRecord)
    assert record.flat is not None
    return record.flat


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_large_reply_lies_where_the_client_has_written_it(lone: LocalGrid) -> None:
    """Client 2 adds its number; the model that was sent is not changed, and no descriptor is left."""
    gc.collect()
    gc.disable()
    try:
        others = len(shared_memory._descriptors)
        vector = new_vector(SIZE).fill_(1.0)
        content = RecordDict({"arrays": wire.FlatRecord(vector, LAYOUT), "config": ConfigRecord({})})
        before = None
        for _ in range(2):
            replies = ask(lone, "train", content, [3, 1])
            assert [float(flat_in(reply)[-1]) for reply in replies] == [3.0, 1.0]
            assert all(descriptor_of(flat_in(reply)) is not None for reply in replies)
            del replies
            assert before in {None, descriptors()}
            before = descriptors()
        assert float(vector.sum()) == SIZE
        assert len(shared_memory._descriptors) == others + 1
    finally:
        gc.enable()


def test_a_client_that_overwrites_a_large_model_changes_its_own_alone(lone: LocalGrid) -> None:
    vector = new_vector(SIZE).fill_(1.0)
    content = RecordDict({"arrays": wire.FlatRecord(vector, LAYOUT), "config": ConfigRecord({})})
    for _ in range(2):
        (reply,) = ask(lone, "train.overwrite", content, [1])
        assert float(flat_in(reply)[0]) == 2.0
    assert float(vector.sum()) == SIZE


def test_small_and_large_replies_of_several_workers_are_not_mixed_up(grid: LocalGrid) -> None:
    sizes = [SIZE, 3, SIZE + 5, 7]
    asked = [
        message
        for node, size in enumerate(sizes, start=1)
        for message in messages(
            grid, "train.large", RecordDict({"config": ConfigRecord({"size": size})}), [node]
        )
    ]
    replies = grid.send_and_receive(asked, timeout=900)
    found = {reply.metadata.src_node_id: received(reply)["w"] for reply in replies}
    assert {node: len(w) for node, w in found.items()} == dict(enumerate(sizes, start=1))
    assert all(bool((w == 1.0).all()) for w in found.values())


def test_a_large_model_in_other_memory_is_sent_as_well(grid: LocalGrid) -> None:
    (reply,) = ask(grid, "train", model({"w": torch.zeros(SIZE)}), [2])
    assert float(received(reply)["w"].max()) == 1.0

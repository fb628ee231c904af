"""strategies/core/dataset_examples.py: read lazily, it gives what the same data give in memory."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from strategies.client.data_tags import block_tags
from strategies.core.dataset_examples import DatasetExamples, Source, StoredParts
from strategies.core.errors import BadInput
from strategies.core.examples import Inputs, TensorExamples, concatenated, in_memory


class Counted(Source):
    """Example i has input (i, −i) and label i mod 3; counts what is read."""

    def __init__(self, count: int, *, known: bool = False, width: int = 2) -> None:
        self.count, self.known, self.width = count, known, width
        self.reads: list[int] = []

    def __len__(self) -> int:
        return self.count

    def read(self, index: Tensor) -> tuple[Inputs, Tensor]:
        self.reads.append(len(index))
        x = torch.stack([index, -index], dim=1).float().repeat(1, self.width // 2)
        return x, index % 3

    def known_targets(self) -> Tensor | None:
        return torch.arange(self.count) % 3 if self.known else None


def stored(source: Counted) -> TensorExamples:
    """Return the same examples in memory."""
    return TensorExamples(*source.read(torch.arange(len(source))))


def test_by_hand() -> None:
    """Of 5 examples, [4, 1] have inputs 4 and 1 and labels 1 and 1; nothing is read to choose them."""
    source = Counted(5, known=True)
    chosen = DatasetExamples.all_of(source).subset([4, 1])
    assert chosen.groups().tolist() == [1, 1]
    assert chosen.group_counts(3) == [0, 2, 0]
    assert not source.reads
    x, y = chosen.batch(torch.tensor([1]))
    assert (x.tolist(), y.tolist(), source.reads) == ([[1.0, -1.0]], [1], [1])
    assert chosen.input_shape == (2,)


@settings(deadline=None)
@given(st.data())
def test_as_in_memory(data: st.DataObject) -> None:
    """Subsets, splits, batches, targets, groups and tags are those of the same examples in memory."""
    count = data.draw(st.integers(1, 20))
    source = Counted(count, known=data.draw(st.booleans()))
    lazy, memory = DatasetExamples.all_of(source), stored(Counted(count))
    chosen = data.draw(st.lists(st.integers(0, count - 1)))
    index = torch.tensor(data.draw(st.lists(st.integers(0, max(0, len(chosen) - 1)))) if chosen else [])
    for first, second in ((lazy.subset(chosen), memory.subset(chosen)),):
        assert first.targets().equal(second.targets())
        assert first.groups().equal(second.groups())
        pairs = (first.batch(index.long()), second.batch(index.long()))
        assert all(a.equal(b) for a, b in zip(*pairs, strict=True))
        assert in_memory(first).x.equal(second.x)
        assert block_tags(first, b"k", len(chosen)) == block_tags(second, b"k", len(chosen))
    assert lazy.without(chosen).targets().equal(memory.without(chosen).targets())


def test_targets_are_read_once_for_all_subsets() -> None:
    """Three subsets of a source that does not know its targets cost one pass (and one look at the size)."""
    source = Counted(10)
    examples = DatasetExamples.all_of(source)
    for part in (examples, examples.subset([1, 2]), examples.subset([3])):
        part.groups()
    assert source.reads == [1, 10]


def test_large_inputs_are_read_few_at_a_time() -> None:
    """Of inputs of 8 MiB, 4 are in memory at a time (2^25 bytes), whatever is asked for."""
    source = Counted(6, width=1 << 21)
    sizes = [len(y) for _, y in DatasetExamples.all_of(source).batches(512)]
    assert sizes == [4, 2]


def test_parts_by_name() -> None:
    """Inputs of two parts are chosen together; what wants one tensor says that they are two."""
    parts = {"image": torch.arange(6.0).view(3, 2), "age": torch.tensor([10.0, 20.0, 30.0])}
    examples = DatasetExamples.all_of(StoredParts(parts, torch.tensor([0, 1, 0])))
    inputs, targets = examples.split(examples.chosen([0], ()))[0].batch(torch.tensor([1]))
    assert {name: part.tolist() for name, part in inputs.items()} == {"image": [[4.0, 5.0]], "age": [30.0]}
    assert (targets.tolist(), examples.input_shape) == ([0], ())
    for refusing in (in_memory, lambda e: concatenated([e])):
        with pytest.raises(BadInput, match=r"^inputs of several parts \(image, age\) are no one tensor$"):
            refusing(examples)
    tags = [block_tags(examples.subset(order), b"k", 2) for order in ([0, 1], [1, 0])]
    assert tags[0] != tags[1]
    with pytest.raises(ValueError, match="image 3, age 3 inputs but 2 targets"):
        StoredParts(parts, torch.tensor([0, 1]))


def test_none_at_all() -> None:
    """No example is chosen: batches are empty and have the inputs' shape."""
    none = DatasetExamples.all_of(Counted(4)).subset([])
    x, y = none.batch(torch.zeros(0, dtype=torch.int64))
    assert (x.shape, y.shape, none.input_shape) == ((0, 2), (0,), (2,))
    assert [len(y) for _, y in none.batches(3)] == [0]

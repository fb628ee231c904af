"""strategies/core/examples.py: inputs and labels stay paired in every choice of examples."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from strategies.core.examples import Examples, TensorExamples, concatenated, selection_mask


def numbered(n: int) -> Examples:
    """Return n examples; example i has input (i, −i) and label 10·i, so that a pair is recognised."""
    positions = torch.arange(n)
    return TensorExamples(torch.stack([positions, -positions], dim=1).float(), 10 * positions)


def positions_of(examples: Examples) -> list[int]:
    """Return which of the numbered examples these are, after checking that each is whole."""
    first = examples.x[:, 0]
    assert examples.x[:, 1].equal(-first)
    assert examples.y.equal(10 * first.long())
    return [int(i) for i in first]


def sized_choices() -> st.SearchStrategy[tuple[int, list[int]]]:
    """Draw a number of examples and some positions in it, in any order, repeated or not."""
    return st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n - 1))))


def test_by_hand() -> None:
    """Of examples 0, 1, 2: [2, 0] are two and zero; without 1 they are zero and two."""
    three = numbered(3)
    assert len(three) == 3
    assert three.subset([2, 0]).y.tolist() == [20, 0]
    assert three.subset([2, 0]).x.tolist() == [[2.0, -2.0], [0.0, 0.0]]
    assert three.without([1]).y.tolist() == [0, 20]


@settings(deadline=None)
@given(sized_choices())
def test_choices_keep_pairs_and_order(choice: tuple[int, list[int]]) -> None:
    """Subset follows the positions given, `without` the old order; a list and a tensor mean the same."""
    n, chosen = choice
    examples, index = numbered(n), torch.tensor(chosen, dtype=torch.int64)
    assert positions_of(examples.subset(chosen)) == positions_of(examples.subset(index)) == chosen
    rest = [i for i in range(n) if i not in chosen]
    assert positions_of(examples.without(chosen)) == positions_of(examples.without(index)) == rest


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_split_is_a_partition(mask: list[bool]) -> None:
    """The chosen and the others, each in their order, are all."""
    chosen, others = numbered(len(mask)).split(torch.tensor(mask))
    assert positions_of(chosen) == [i for i, inside in enumerate(mask) if inside]
    assert positions_of(others) == [i for i, inside in enumerate(mask) if not inside]


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_concat_is_in_order(sizes: list[int]) -> None:
    """Parts follow one another, empty ones too; an iterator will do."""
    whole = numbered(sum(sizes))
    parts = [whole.subset(range(sum(sizes[:i]), sum(sizes[: i + 1]))) for i in range(len(sizes))]
    assert positions_of(concatenated(iter(parts))) == list(range(sum(sizes)))


def test_nothing_chosen() -> None:
    """An empty choice keeps the shape of one input, and leaving out nothing leaves all."""
    assert numbered(3).subset([]).x.shape == (0, 2)
    assert positions_of(numbered(3).without([])) == [0, 1, 2]
    assert len(numbered(2).without([0, 1])) == 0


def test_originals_are_not_shared_with_choices() -> None:
    """Writing into a subset leaves the examples as they were."""
    examples = numbered(3)
    examples.subset([0, 1]).x.fill_(9.0)
    examples.without([0]).y.fill_(9)
    assert positions_of(examples) == [0, 1, 2]


def test_to_a_device() -> None:
    """Both tensors move; the meta device stands for any."""
    moved = numbered(3).to("meta")
    assert moved.x.device.type == moved.y.device.type == "meta"
    assert len(moved) == 3


LABELS = torch.tensor([1, 0, 2, 1])


@pytest.mark.parametrize(
    ("classes", "indices", "expected"),
    [
        ([], [], [False, False, False, False]),
        ([1], [], [True, False, False, True]),
        ([0, 2], [], [False, True, True, False]),
        ([5], [], [False, False, False, False]),
        ([], [2], [False, False, True, False]),
        ([1], [1, 0], [True, True, False, True]),
        ([], [-1, 4, 3], [False, False, False, True]),
    ],
)
def test_selection_by_hand(classes: list[int], indices: list[int], expected: list[bool]) -> None:
    """Labels 1 0 2 1: classes and positions are joined; positions outside, −1 among them, name nothing."""
    assert selection_mask(LABELS, classes, indices).tolist() == expected


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), max_size=10), st.lists(st.integers(-1, 5)), st.lists(st.integers(-12, 12)))
def test_selection_equals_slow_loop(labels: list[int], classes: list[int], indices: list[int]) -> None:
    """One example at a time."""
    mask: Tensor = selection_mask(torch.tensor(labels, dtype=torch.int64), classes, indices)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [label in classes or i in indices for i, label in enumerate(labels)]


def test_unpaired_is_refused() -> None:
    """Two inputs and three labels."""
    with pytest.raises(ValueError, match=r"^2 inputs but 3 targets$"):
        TensorExamples(torch.zeros(2, 4), torch.zeros(3, dtype=torch.int64))


def test_position_outside_is_refused() -> None:
    """A subset of three has no example 3."""
    with pytest.raises(IndexError, match="out of bounds"):
        numbered(3).subset([3])


def test_shifted_labels_would_be_noticed() -> None:
    """Labels that are off by one example fail the check that every test above makes."""
    damaged = TensorExamples(numbered(3).x, numbered(3).y.roll(1))
    with pytest.raises(AssertionError):
        positions_of(damaged)


def test_numbers_have_no_groups_unless_the_task_makes_some() -> None:
    numbers = torch.tensor([0.2, 1.4, 0.9])
    assert TensorExamples(torch.zeros(3, 1), numbers).groups() is None
    made = TensorExamples(torch.zeros(3, 1), numbers, lambda targets: (targets > 1).long())
    assert made.subset([1, 2]).to("cpu").groups().tolist() == [1, 0]


def test_examples_are_put_on_a_device_once() -> None:
    """Torch's device `meta` stands for one."""
    examples = numbered(3)
    there = examples.to("meta")
    assert there is examples.to(torch.device("meta"))
    assert there.batch(torch.tensor([1]))[0].device.type == "meta"
    assert examples.to("cpu") is examples

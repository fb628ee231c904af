"""strategies/client/hard_examples.py: a few examples are mislabelled or rare, all others stay."""

import pytest
import torch
from hypothesis import given, strategies as st

from strategies.client.hard_examples import harden
from strategies.client.settings import HardKind
from strategies.core.errors import BadInput
from strategies.core.examples import TensorExamples
from strategies.core.seeds import torch_generator


def examples(labels: list[int]) -> TensorExamples:
    """Inputs 0, 1, 2, …, so that the range of six is 0 to 5."""
    return TensorExamples(torch.arange(float(len(labels))).view(-1, 1), torch.tensor(labels))


def test_a_rare_input_is_reflected_in_the_middle_of_the_range() -> None:
    """Of 0, …, 5 the reflection of x is 5 − x; the label stays."""
    made, chosen = harden(examples([3, 1, 3, 1, 3, 1]), "rare", 2, torch_generator(0))
    changed = {int(i): float(made.x[i]) for i in chosen}
    assert changed == {i: 5.0 - i for i in changed}
    assert made.y.tolist() == [3, 1, 3, 1, 3, 1]


def test_of_two_classes_the_wrong_label_is_the_other() -> None:
    made, chosen = harden(examples([7, 2, 7, 2, 7]), "mislabelled", 3, torch_generator(0))
    for i in range(5):
        right = [7, 2, 7, 2, 7][i]
        assert int(made.y[i]) == (9 - right if i in chosen.tolist() else right)
    assert made.x.equal(examples([0] * 5).x)


@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=30).filter(lambda found: len(set(found)) > 1),
    share=st.floats(0, 1),
    kind=st.sampled_from(["mislabelled", "rare"]),
)
def test_so_many_are_made_hard_and_no_other_changes(labels: list[int], share: float, kind: HardKind) -> None:
    given_examples, count = examples(labels), round(share * len(labels))
    made, chosen = harden(given_examples, kind, count, torch_generator(1))
    assert len(chosen) == len(set(chosen.tolist())) == count
    others = [i for i in range(len(labels)) if i not in chosen.tolist()]
    assert made.y[others].equal(given_examples.y[others])
    assert made.x[others].equal(given_examples.x[others])
    if kind == "mislabelled":
        assert not bool((made.y[chosen] == given_examples.y[chosen]).any())
        assert set(made.y.tolist()) <= set(labels)


def test_none_is_no_change_and_the_given_examples_stay() -> None:
    before = examples([0, 1, 0])
    made, chosen = harden(before, "none", 2, torch_generator(0))
    assert (made.y.tolist(), len(chosen)) == ([0, 1, 0], 0)
    harden(before, "mislabelled", 3, torch_generator(0))
    assert before.y.tolist() == [0, 1, 0]


def test_the_generator_decides() -> None:
    many = examples([0, 1] * 20)
    first, again, other = (harden(many, "mislabelled", 5, torch_generator(seed))[1] for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


def test_what_cannot_be_made_hard_is_refused() -> None:
    with pytest.raises(BadInput, match=r"hard\.examples: given 4, a client that hard\.clients names has 3"):
        harden(examples([0, 1, 0]), "rare", 4, torch_generator(0))
    with pytest.raises(BadInput, match=r'hard\.kind: given "mislabelled", but a client .* single class'):
        harden(examples([1, 1]), "mislabelled", 1, torch_generator(0))

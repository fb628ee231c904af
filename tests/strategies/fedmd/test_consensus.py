"""strategies/fedmd/consensus.py: what the answers come to, and which examples they are about."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, strategies as st

from strategies.core.seeds import torch_generator
from strategies.fedmd.consensus import (
    certainty,
    confidence_consensus,
    draw_alignment,
    mean_consensus,
    variance_consensus,
)

A = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
B = torch.tensor([[3.0, -1.0], [2.0, 4.0]])


def answers(count: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch_generator(seed)
    return {str(i): 5 * torch.randn(7, 4, generator=generator) for i in range(count)}


# by hand


def test_mean_of_two_clients_by_hand() -> None:
    """(1+3)/2 = 2, (3−1)/2 = 1; (0+2)/2 = 1, (0+4)/2 = 2."""
    assert mean_consensus({"a": A, "b": B}, {}).tolist() == [[2.0, 1.0], [1.0, 2.0]]


def test_weighted_by_hand() -> None:
    """a counts 1, b 3: (1+9)/4 = 2.5, (3−3)/4 = 0; (0+6)/4 = 1.5, (0+12)/4 = 3."""
    assert mean_consensus({"a": A, "b": B}, {"b": 3.0}).tolist() == [[2.5, 0.0], [1.5, 3.0]]


def test_confidence_by_hand() -> None:
    """Row 2 of a is uniform: certainty 0, so b's stands alone. In row 1 the two count 1 − H(p)/log 2 each,

    p = σ(2) for a and σ(4) for b.
    """

    def sure(gap: float) -> float:
        p = 1 / (1 + math.exp(-gap))
        return 1 + (p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2)

    a, b = sure(2.0), sure(4.0)
    expected = [[(a + 3 * b) / (a + b), (3 * a - b) / (a + b)], [2.0, 4.0]]
    torch.testing.assert_close(confidence_consensus({"a": A, "b": B}), torch.tensor(expected))


def test_where_nobody_is_sure_all_rows_count_alike() -> None:
    one, two = torch.full((1, 3), 1.0), torch.full((1, 3), 5.0)
    assert confidence_consensus({"a": one, "b": two}).tolist() == [[3.0, 3.0, 3.0]]


def test_variance_by_hand() -> None:
    """Column 1 is (1, 0) of a, variance ¼, and (3, 2) of b, variance ¼: their mean, (2, 1).

    Column 2 is (3, 0) of a, variance 9/4, and (−1, 4) of b, variance 25/4: weights 9/34 and 25/34, so
    (27 − 25)/34 and 100/34.
    """
    expected = torch.tensor([[2.0, 2 / 34], [1.0, 100 / 34]])
    torch.testing.assert_close(variance_consensus({"a": A, "b": B}), expected)


def test_a_class_that_a_client_never_saw_is_left_to_those_who_did() -> None:
    """The blind client answers −9 in its column whatever it is shown, the other tells two examples apart."""
    blind, seeing = torch.tensor([[0.0, -9.0], [4.0, -9.0]]), torch.tensor([[4.0, 6.0], [0.0, -6.0]])
    assert variance_consensus({"a": blind, "b": seeing}).tolist() == [[2.0, 6.0], [2.0, -6.0]]
    assert confidence_consensus({"a": blind, "b": seeing})[0, 1] < 0


def test_a_column_that_varies_with_nobody_is_the_mean() -> None:
    one, two = torch.tensor([[1.0], [1.0]]), torch.tensor([[5.0], [5.0]])
    assert variance_consensus({"a": one, "b": two}).tolist() == [[3.0], [3.0]]


# slow reference


@given(st.integers(1, 5), st.integers(0, 100))
def test_mean_is_the_sum_written_out(count: int, seed: int) -> None:
    logits = answers(count, seed)
    expected = torch.stack([sum(float(f[i, c]) for f in logits.values()) / count * torch.ones(())
                            for i in range(7) for c in range(4)]).view(7, 4)  # fmt: skip
    torch.testing.assert_close(mean_consensus(logits, {}), expected)


@given(st.integers(1, 5), st.integers(0, 100))
def test_confidence_is_the_loop_over_rows(count: int, seed: int) -> None:
    logits = answers(count, seed)
    rows = []
    for i in range(7):
        sure = [float(certainty(f[i : i + 1])) for f in logits.values()]
        rows.append(sum(w * f[i].double() for w, f in zip(sure, logits.values(), strict=True)) / sum(sure))
    torch.testing.assert_close(confidence_consensus(logits), torch.stack(rows).float())


@given(st.integers(1, 5), st.integers(0, 100))
def test_variance_is_the_loop_over_columns(count: int, seed: int) -> None:
    logits = answers(count, seed)
    columns = []
    for c in range(4):
        varies = [float(((f[:, c] - f[:, c].mean()).double() ** 2).mean()) for f in logits.values()]
        told = sum(v * f[:, c].double() for v, f in zip(varies, logits.values(), strict=True))
        columns.append(told / sum(varies))
    torch.testing.assert_close(variance_consensus(logits), torch.stack(columns, dim=1).float())


# properties


@given(st.integers(2, 5), st.integers(0, 50), st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_change_a_bit(count: int, seed: int, order: object) -> None:
    logits = answers(count, seed)
    names = list(logits)
    order.shuffle(names)  # type: ignore[attr-defined]
    shuffled = {name: logits[name] for name in names}
    weights = {"0": 0.3, "1": 7.0}
    assert torch.equal(mean_consensus(logits, weights), mean_consensus(shuffled, weights))
    assert torch.equal(confidence_consensus(logits), confidence_consensus(shuffled))
    assert torch.equal(variance_consensus(logits), variance_consensus(shuffled))


@given(st.integers(1, 5), st.floats(0.01, 100))
def test_scaling_all_weights_is_irrelevant(count: int, factor: float) -> None:
    logits = answers(count, 3)
    weights = {name: 1.0 + int(name) for name in logits}
    scaled = {name: factor * w for name, w in weights.items()}
    torch.testing.assert_close(mean_consensus(logits, weights), mean_consensus(logits, scaled))


def test_identical_answers_are_their_own_consensus() -> None:
    same = {"a": A, "b": A, "c": A}
    assert torch.equal(mean_consensus(same, {}), A)
    torch.testing.assert_close(confidence_consensus(same), A)
    torch.testing.assert_close(variance_consensus(same), A)


@pytest.mark.parametrize("consensus", [confidence_consensus, variance_consensus])
def test_a_rule_differs_from_the_mean(consensus: Callable[[dict[str, torch.Tensor]], torch.Tensor]) -> None:
    logits = answers(3, 1)
    assert not torch.allclose(consensus(logits), mean_consensus(logits, {}))


# the alignment subset


@given(st.integers(1, 80), st.integers(0, 20), st.integers(1, 5))
def test_every_class_has_its_share(count: int, seed: int, server_round: int) -> None:
    labels = torch.arange(80) % 4
    drawn = draw_alignment(labels, count, seed, server_round)
    assert len(set(drawn.tolist())) == count
    assert drawn.tolist() == sorted(drawn.tolist())
    assert all(abs(int(n) - count / 4) <= 1 for n in torch.bincount(labels[drawn], minlength=4))


def test_the_draw_is_the_seed_and_the_round() -> None:
    labels = torch.arange(80) % 4
    first = draw_alignment(labels, 20, 0, 1)
    assert torch.equal(first, draw_alignment(labels, 20, 0, 1))
    assert not torch.equal(first, draw_alignment(labels, 20, 0, 2))
    assert not torch.equal(first, draw_alignment(labels, 20, 1, 1))


@pytest.mark.parametrize("count", [80])
def test_all_examples_may_be_drawn(count: int) -> None:
    assert draw_alignment(torch.arange(80) % 4, count, 0, 1).tolist() == list(range(80))

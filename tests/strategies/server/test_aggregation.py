"""strategies/server/aggregation.py: the weighted mean, the same bits in every order of arrival."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from strategies.core import wire
from strategies.core.seeds import numpy_generator, torch_generator
from strategies.server.aggregation import (
    CAPACITY,
    FRACTION_BITS,
    MAX_ABS_UPDATE,
    ExactSum,
    MetricMeans,
    apply_mean,
    fixed_point,
    fraction_bits,
    weighted_mean,
)

SIZE = 3
Terms = list[tuple[list[float], float]]

ENTRIES = st.floats(-MAX_ABS_UPDATE, MAX_ABS_UPDATE, width=32)
TERMS: st.SearchStrategy[Terms] = st.lists(
    st.tuples(st.lists(ENTRIES, min_size=SIZE, max_size=SIZE), st.floats(0.01, 1000.0)),
    min_size=1,
    max_size=12,
)


def exact_mean(terms: Terms, bits: int = FRACTION_BITS) -> Tensor:
    """Return the mean by `ExactSum`, terms added in the order given."""
    running = ExactSum(len(terms[0][0]), bits)
    for delta, weight in terms:
        running.add(torch.tensor(delta, dtype=torch.float32), weight)
    return running.mean()


def rational_mean(terms: Terms) -> list[Fraction]:
    """Return the mean in rational numbers, without any rounding: slow and right."""
    total = sum(Fraction(weight) for _, weight in terms)
    columns = zip(*(delta for delta, _ in terms), strict=True)
    weights = [Fraction(weight) for _, weight in terms]
    return [
        sum((w * Fraction(v) for w, v in zip(weights, c, strict=True)), Fraction()) / total for c in columns
    ]


def rounding(terms: Terms, bits: int = FRACTION_BITS) -> float:
    """Return the bound m·2^-(b+1) / Σ weight of the docstring."""
    return len(terms) * 2.0 ** -(bits + 1) / math.fsum(weight for _, weight in terms)


def float64(terms: Terms) -> float:
    """Return what float64 itself may lose: four roundings of the largest entry, relative 2^-53 each."""
    return 4 * 2.0**-53 * max(abs(v) for delta, _ in terms for v in delta)


# by hand


def test_two_clients_by_hand() -> None:
    """1 example with updates (4, −8) and 3 with (0, 4): (1·4 + 3·0) / 4 = 1 and (−8 + 12) / 4 = 1."""
    running = ExactSum(2)
    running.add(torch.tensor([4.0, -8.0]), 1.0)
    running.add(torch.tensor([0.0, 4.0]), 3.0)
    assert running.mean().tolist() == [1.0, 1.0]
    assert running.mean().dtype == torch.float64
    assert (running.weight, running.count) == (4.0, 2)


def test_weighted_mean_by_hand() -> None:
    """(2·1 + 5·3) / (1 + 3) = 17 / 4."""
    assert weighted_mean([(2.0, 1.0), (5.0, 3.0)]) == 4.25
    assert weighted_mean(iter([(7.0, 0.5)])) == 7.0


def test_weighted_mean_sums_are_correctly_rounded() -> None:
    """1e16 + 1 − 1e16 is 1, which a plain sum of floats makes 0."""
    terms = [(1e16, 1.0), (1.0, 1.0), (-1e16, 1.0)]
    assert weighted_mean(terms) == 1.0 / 3.0


def test_metric_means_by_hand() -> None:
    """A metric is averaged over the replies that had it: a = (1·1 + 4·2) / 3 = 3, b = 5."""
    means = MetricMeans()
    means.add({"a": 1.0}, 1.0)
    means.add({"a": 4.0, "b": 5.0}, 2.0)
    assert means.means() == {"a": 3.0, "b": 5.0}
    assert MetricMeans().means() == {}


def test_apply_mean_rounds_once() -> None:
    """1 + (2^-24 + 2^-50) lies just above the middle of two float32 numbers, so it rounds up.

    A mean rounded to float32 first is the middle itself, and that rounds down to even, to 1.
    """
    flat, mean = torch.ones(1), torch.tensor([2.0**-24 + 2.0**-50], dtype=torch.float64)
    assert apply_mean(flat, mean).tolist() == [1.0 + 2.0**-23]
    assert (flat + mean.float()).tolist() == [1.0]
    assert apply_mean(flat, mean).dtype == torch.float32
    assert flat.tolist() == [1.0]


# against slow references


@settings(deadline=None)
@given(TERMS, st.integers(20, FRACTION_BITS))
def test_equals_rational_mean_within_the_bound(terms: Terms, bits: int) -> None:
    """The documented bound, and float64's own rounding of the products and the quotient."""
    for got, expected in zip(exact_mean(terms, bits).tolist(), rational_mean(terms), strict=True):
        assert abs(Fraction(got) - expected) <= rounding(terms, bits) + float64(terms)


@settings(deadline=None)
@given(st.lists(st.tuples(ENTRIES, st.floats(1e-6, 2.0**31)), min_size=1), st.integers(0, FRACTION_BITS))
def test_both_words_together_are_the_fixed_point(terms: list[tuple[float, float]], bits: int) -> None:
    """Each term is ⌊weight·δ·2^b⌉ / 2^b, half to even, as Python's own round has it; their sum is exact."""
    running, expected = ExactSum(1, bits), Fraction()
    for value, weight in terms:
        running.add(torch.tensor([value]), weight)
        expected += Fraction(round(Fraction(value * weight) * 2**bits), 2**bits)
    mean = running.mean() * running.weight
    assert float(mean) == pytest.approx(float(expected), rel=2.0**-50, abs=0)


@settings(deadline=None)
@given(ENTRIES, st.integers(1, 2**16), st.integers(0, 36))
def test_a_masked_sum_is_rounded_alike(value: float, weight: int, bits: int) -> None:
    """What a client encodes by itself, and what `ExactSum` keeps of its update, are the same number."""
    plain, masked = ExactSum(1, bits), ExactSum(1)
    plain.add(torch.tensor([value]), weight)
    masked.add_sum(fixed_point(torch.tensor([value]), weight * 2.0**bits), weight, bits)
    assert plain.mean().equal(masked.mean())


def test_words_are_carried_however_many_terms_there_are() -> None:
    """3,000 times (−1/4, 1/2 + 2^-52): low words that would overflow without carrying; all exact."""
    running = ExactSum(2)
    for _ in range(3000):
        running.add(torch.tensor([-0.5, 1.0]) + torch.tensor([0.0, 2.0**-23]), 0.5)
    total = running.mean() * running.weight
    assert total.tolist() == [-750.0, 3000 * (0.5 + 2.0**-24)]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 40))
def test_equals_numpy_float64_mean(seed: int, num_clients: int) -> None:
    """Updates of trained size, weighted by whole numbers of examples, more entries than one block."""
    generator = numpy_generator(seed, "updates")
    deltas = generator.normal(0.0, 0.05, (num_clients, 40_000)).astype(np.float32)
    weights = generator.integers(1, 500, num_clients)
    running = ExactSum(40_000)
    for delta, weight in zip(deltas, weights, strict=True):
        running.add(torch.from_numpy(delta), float(weight))
    expected = np.average(deltas.astype(np.float64), axis=0, weights=weights)
    # numpy's running sum rounds once per client, relative 2^-53 of at most the largest entry.
    slack = (num_clients + 4) * 2.0**-53 * float(np.abs(deltas).max())
    difference = np.abs(running.mean().numpy() - expected).max()
    assert difference <= num_clients * 2.0**-53 / weights.sum() + slack


def test_small_updates_beside_the_largest_claim() -> None:
    """Ten examples that move an entry by 1e-5, beside 2^31 that do not: heard to 1e-12 of themselves."""
    step = float(np.float32(1e-5))
    terms: Terms = [([step], 10.0), ([0.0], 2.0**31)]
    moved = Fraction(float(exact_mean(terms)))
    assert abs(moved / rational_mean(terms)[0] - 1) < 1e-12
    assert float(exact_mean([([step], 10.0)])) == pytest.approx(step, rel=1e-12)


def test_all_that_the_guard_lets_through_fits() -> None:
    """2^20 clients of the most examples, each with the largest entries of either sign."""
    assert 2.0**20 * wire.MAX_EXAMPLES * MAX_ABS_UPDATE == CAPACITY
    terms: Terms = [([MAX_ABS_UPDATE, -MAX_ABS_UPDATE], float(wire.MAX_EXAMPLES))] * 4
    assert exact_mean(terms).tolist() == [MAX_ABS_UPDATE, -MAX_ABS_UPDATE]


def test_weights_are_added_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A term costs the same whatever the number of those before it: no sum over all is taken for it."""
    sums: list[int] = []
    running = ExactSum(1)
    monkeypatch.setattr(math, "fsum", lambda listed: sums.append(len(listed)) or sum(listed))
    for _ in range(100):
        running.add(torch.ones(1), 1.0)
    assert sums == []
    assert running.mean().item() == 1.0
    assert sums == [100]


# properties


@settings(deadline=None)
@given(TERMS.flatmap(lambda terms: st.tuples(st.just(terms), st.permutations(terms))))
def test_order_changes_no_bit(orders: tuple[Terms, Terms]) -> None:
    """Every order of arrival gives the same float64 numbers."""
    assert exact_mean(orders[0]).equal(exact_mean(orders[1]))


@settings(deadline=None)
@given(TERMS.flatmap(lambda terms: st.tuples(st.just(terms), st.permutations(terms))))
def test_order_changes_no_metric(orders: tuple[Terms, Terms]) -> None:
    """Neither does it change the mean of a metric."""
    means = []
    for terms in orders:
        metrics = MetricMeans()
        for delta, weight in terms:
            metrics.add({"loss": delta[0]}, weight)
        means.append(metrics.means())
    assert means[0] == means[1]


@settings(deadline=None)
@given(TERMS)
def test_scaling_all_weights_is_irrelevant(terms: Terms) -> None:
    """Twice the weights with a bit less: the same bits. With the same bits: the same within the bound."""
    doubled = [(delta, 2 * weight) for delta, weight in terms]
    assert exact_mean(doubled, 40).equal(exact_mean(terms, 41))
    difference = (exact_mean(doubled) - exact_mean(terms)).abs().max()
    assert float(difference) <= 2 * rounding(terms) + 2 * float64(terms)


@settings(deadline=None)
@given(st.lists(ENTRIES, min_size=1, max_size=5), st.integers(1, 500))
def test_one_client_is_its_own_mean(delta: list[float], weight: int) -> None:
    """One update with any weight gives it back, within the bound."""
    difference = (exact_mean([(delta, float(weight))]) - torch.tensor(delta, dtype=torch.float64)).abs().max()
    assert float(difference) <= rounding([(delta, float(weight))]) + float64([(delta, 1.0)])


def test_opposite_updates_cancel() -> None:
    """The rounding is symmetric about zero: δ and −δ sum to exactly nothing."""
    delta = torch.randn(1000, generator=torch_generator(0, "delta"))
    running = ExactSum(1000)
    running.add(delta, 0.3)
    running.add(-delta, 0.3)
    assert running.mean().eq(0.0).all()


def test_a_later_mean_is_not_touched_by_an_earlier_one() -> None:
    """Taking the mean changes nothing, of the sum or of the update given."""
    delta = torch.tensor([1.0, 2.0])
    running = ExactSum(2)
    running.add(delta, 1.0)
    first = running.mean()
    assert running.mean().equal(first)
    running.add(torch.tensor([3.0, 4.0]), 1.0)
    assert first.tolist() == [1.0, 2.0]
    assert running.mean().tolist() == [2.0, 3.0]
    assert delta.tolist() == [1.0, 2.0]


def test_no_entries() -> None:
    """A model without parameters has a mean of none."""
    assert exact_mean([([], 1.0)]).shape == (0,)


# errors


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_weight_must_be_positive(weight: float) -> None:
    """Zero, less, NaN and infinity are refused."""
    with pytest.raises(ValueError, match=r"^weight .* is not positive and finite$"):
        ExactSum(1).add(torch.zeros(1), weight)


@pytest.mark.parametrize("entry", [2.0**51, -(2.0**51), math.inf, -math.inf, math.nan])
def test_entries_must_be_finite_and_not_too_large(entry: float) -> None:
    """Refused wherever the entry is; the sum is as it was."""
    running = ExactSum(3)
    running.add(torch.tensor([1.0, 2.0, 3.0]), 1.0)
    with pytest.raises(ValueError, match=r"^an entry of the update is not finite, or times 2\.0 not "):
        running.add(torch.tensor([0.0, 0.0, entry]), 2.0)
    assert running.count == 1
    assert running.mean().tolist() == [1.0, 2.0, 3.0]


def test_the_sum_never_overflows() -> None:
    """2^10 terms of 2^51 fill it; one more is refused, and the sum stays what it is."""
    running = ExactSum(1)
    for _ in range(2**10):
        running.add(torch.tensor([2.0**20]), 2.0**31)
    with pytest.raises(ValueError, match=r"^the sum could pass "):
        running.add(torch.tensor([2.0**20]), 2.0**31)
    assert running.mean().tolist() == [2.0**20]


@pytest.mark.parametrize("bits", [-1, 53])
def test_fraction_bits_are_those_of_a_float(bits: int) -> None:
    with pytest.raises(ValueError, match=r"^fraction_bits must be from 0 to 52, got "):
        ExactSum(1, bits)
    with pytest.raises(ValueError, match=r"cannot be kept in multiples of 2\^-8$"):
        ExactSum(1, 8).add_sum(torch.zeros(1, dtype=torch.int64), 1.0, bits)


def test_mean_of_nothing() -> None:
    """There is none."""
    with pytest.raises(ValueError, match=r"^the mean of no updates is undefined$"):
        ExactSum(1).mean()


@pytest.mark.parametrize("bound", [0.0, -1.0, 2.0**51, math.nan, math.inf])
def test_a_masked_sum_must_leave_room(bound: float) -> None:
    """A bound above 2^50 would leave two bits for the fraction."""
    with pytest.raises(ValueError, match=r"^weight_bound must be from 1 to 2\^50, got "):
        fraction_bits(bound)
    assert [fraction_bits(b) for b in (1, 2, 3, 2.0**50)] == [52, 51, 50, 2]


# a damaged answer


def test_a_float32_sum_would_be_noticed() -> None:
    """A plain float32 sum depends on the order and misses the bound: both assertions above see it."""
    terms: Terms = [([1000.0], 1.0), ([1e-5], 1.0), ([-1000.0], 1.0)]

    def plain(listed: Terms) -> float:
        total = torch.zeros(1)
        for delta, weight in listed:
            total += torch.tensor(delta) * weight
        return float(total / 3)

    assert plain(terms) != plain([terms[0], terms[2], terms[1]])
    assert abs(Fraction(plain(terms)) - rational_mean(terms)[0]) > rounding(terms) + float64(terms)

"""The attacker by hand and by its definition, and whether it admits to guessing."""

from itertools import product
from math import comb
from statistics import fmean, stdev

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from strategies.core.seeds import numpy_generator, torch_generator
from unlearning.audit.membership import MembershipResult, best_threshold, guessing_bound, membership_attack


def beta(seed: int, name: str, a: float, b: float, n: int) -> Tensor:
    return torch.from_numpy(numpy_generator(seed, name).beta(a, b, n)).float()


def attack(
    retained: Tensor, unseen: Tensor, forgotten: Tensor, seed: int = 0, max_per_side: int = 2500
) -> MembershipResult:
    return membership_attack(
        retained, unseen, forgotten, numpy_generator(seed, "attack"), max_per_side=max_per_side
    )


# by hand


def test_a_model_that_knows_its_members_by_heart() -> None:
    """Members at margin 1, non-members at 0: the attacker is always right, in every draw.

    Of the four forgotten examples, three at 0 and one at 1, it calls three non-members: efficacy 75 %.
    """
    result = attack(torch.ones(20), torch.zeros(20), torch.tensor([0.0, 0.0, 0.0, 1.0]))
    assert (result.attacker_accuracy, result.attacker_accuracy_std) == (100.0, 0.0)
    assert (result.efficacy, result.efficacy_std) == (75.0, 0.0)
    assert result.num_draws == 10
    assert result.meaningful


def test_the_threshold_by_hand() -> None:
    """Members 2, 3, non-members 0, 1: the cut between 1 and 2 is right four times of four.

    Members 0, 1, non-members 2, 3, the other way round: below all or above all is right twice, none between
    more often, and "low means member" cannot be said.
    """
    assert best_threshold(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.5
    assert best_threshold(np.array([0.0, 1.0]), np.array([2.0, 3.0])) in (-np.inf, np.inf)


def test_guessing_bound_by_hand() -> None:
    """Ten tosses: at most 7 right in 968 of 1024 cases (94.5 %), 8 in 1013 (98.9 %): the bound is 80 %."""
    assert guessing_bound(10) == 80.0


# against a slow reference


def test_guessing_bound_equals_counting_all_sequences() -> None:
    for n in range(1, 11):
        right = sorted(sum(tosses) for tosses in product((0, 1), repeat=n))
        smallest = next(k for k in range(n + 1) if sum(r <= k for r in right) >= 0.95 * len(right))
        assert guessing_bound(n) == pytest.approx(100 * smallest / n)


@settings(deadline=None)
@given(n=st.integers(1, 600))
def test_guessing_bound_is_the_binomial_quantile(n: int) -> None:
    k = round(guessing_bound(n) * n / 100)
    within = sum(comb(n, right) for right in range(k + 1)) / 2**n
    assert within - comb(n, k) / 2**n < 0.95 <= within


@settings(deadline=None)
@given(
    members=st.lists(st.integers(-4, 4), min_size=1, max_size=12),
    others=st.lists(st.integers(-4, 4), min_size=1, max_size=12),
)
def test_no_threshold_is_right_more_often(members: list[int], others: list[int]) -> None:
    def right(cut: float) -> int:
        return sum(m >= cut for m in members) + sum(o < cut for o in others)

    cut = best_threshold(np.array(members, dtype=float), np.array(others, dtype=float))
    assert right(cut) == max(right(c + 0.5) for c in range(-6, 6))


def test_neighbouring_numbers_are_told_apart() -> None:
    """Half-way between two neighbouring floats is one of the two; the cut is then the upper one."""
    low = 1.0
    high = np.nextafter(low, 2.0)
    cut = best_threshold(np.array([high]), np.array([low]))
    assert low < cut <= high


def test_efficacy_and_accuracy_equal_the_definition_written_out() -> None:
    """In every draw find the threshold by trying all, and count by hand which answers are right."""
    retained, unseen, forgotten = beta(1, "r", 8, 1, 50), beta(1, "t", 3, 1, 30), beta(1, "f", 5, 1, 25)
    generator = numpy_generator(0, "attack")
    efficacies, accuracies = [], []
    for _ in range(10):
        members = [float(retained[i]) for i in generator.permutation(50)[:30]]
        others = [float(unseen[i]) for i in generator.permutation(30)[:30]]
        cut = best_threshold(np.array(members[:15]), np.array(others[:15]))
        right = sum(p >= cut for p in members[15:]) + sum(p < cut for p in others[15:])
        accuracies.append(100 * right / 30)
        efficacies.append(100 * sum(float(p) < cut for p in forgotten) / 25)
    result = attack(retained, unseen, forgotten)
    assert result.attacker_accuracy == pytest.approx(fmean(accuracies))
    assert result.attacker_accuracy_std == pytest.approx(stdev(accuracies))
    assert result.efficacy == pytest.approx(fmean(efficacies))
    assert result.efficacy_std == pytest.approx(stdev(efficacies))
    assert (result.num_per_side, result.num_available) == (30, 30)


# what it is for


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_never_saw_the_data_gives_an_attacker_that_guesses(seed: int) -> None:
    """Alleged members and non-members are drawn alike: about half right, and the result says so."""
    retained, unseen, forgotten = (
        beta(seed, name, 6, 1, 400) for name in ("retained", "unseen", "forgotten")
    )
    result = attack(retained, unseen, forgotten)
    assert abs(result.attacker_accuracy - 50.0) < 7.0
    assert result.attacker_accuracy <= result.guessing_bound
    assert not result.meaningful


def test_low_confidence_never_means_member() -> None:
    """Members are less sure than non-members: a classifier that may learn either sign finds them.

    Here none of the thresholds is better than guessing, and the result says so. On such outputs the efficacy
    of a kernel machine is 87 or 7, as the draw falls.
    """
    retained, unseen, forgotten = beta(0, "r", 2, 3, 400), beta(0, "t", 6, 1, 400), beta(0, "f", 2, 3, 200)
    result = attack(retained, unseen, forgotten)
    assert not result.meaningful
    assert result.attacker_accuracy < 55.0


@pytest.mark.parametrize("seed", range(3))
def test_several_draws_agree_where_one_draw_does_not(seed: int) -> None:
    """Other seeds of an attacker that finds something move its mean by less than its spread says."""
    retained, unseen, forgotten = beta(0, "r", 8, 1, 900), beta(0, "t", 4, 1, 300), beta(0, "f", 4, 1, 130)
    first, other = (attack(retained, unseen, forgotten, seed=s) for s in (seed, seed + 100))
    assert first.efficacy is not None
    assert other.efficacy is not None
    assert first.efficacy_std is not None
    assert first.efficacy_std > 0
    assert abs(first.efficacy - other.efficacy) < 2 * first.efficacy_std


def test_an_overfitted_network_gives_its_members_away() -> None:
    """A network fitted to random labels knows them alone: members are found, the forgotten among them.

    The same architecture, trained without the forgotten examples, treats those as it treats unseen ones.
    """
    x = torch.randn(180, 20, generator=torch_generator(0, "x"))
    y = torch.randint(2, (180,), generator=torch_generator(0, "y"))
    retained, forgotten, unseen = slice(0, 60), slice(60, 120), slice(120, 180)
    results = []
    for trained_on in (slice(0, 120), retained):
        margin = overfit(x[trained_on], y[trained_on], x, y)
        results.append(attack(margin[retained], margin[unseen], margin[forgotten]))
    original, retrained = results
    assert original.meaningful
    assert retrained.meaningful
    assert original.efficacy is not None
    assert retrained.efficacy is not None
    assert original.efficacy < 5.0
    assert retrained.efficacy > 40.0


def overfit(x: Tensor, y: Tensor, x_all: Tensor, y_all: Tensor) -> Tensor:
    """Fit random features by least squares; return every example's margin."""
    weights = torch.randn(20, 400, generator=torch_generator(0, "features"), dtype=torch.float64)
    solution = torch.linalg.pinv(torch.tanh(x.double() @ weights)) @ (10.0 * (2.0 * y - 1.0).double())
    margin: Tensor = torch.tanh(x_all.double() @ weights) @ solution * (2.0 * y_all - 1.0)
    return margin.float()


# properties


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), n_r=st.integers(2, 40), n_t=st.integers(2, 40), cap=st.integers(2, 50))
def test_both_sides_are_equal_and_within_the_cap(seed: int, n_r: int, n_t: int, cap: int) -> None:
    retained, unseen = beta(seed, "r", 8, 1, n_r), beta(seed, "t", 2, 1, n_t)
    result = attack(retained, unseen, beta(seed, "f", 4, 1, 9), max_per_side=cap)
    assert result.num_available == min(n_r, n_t)
    assert result.num_per_side == min(n_r, n_t, cap)
    assert 0.0 <= result.attacker_accuracy <= 100.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_forgotten_examples_do_not_train_the_attacker(seed: int) -> None:
    retained, unseen, forgotten = (beta(seed, name, a, 1, 30) for name, a in (("r", 8), ("t", 2), ("f", 4)))
    result = attack(retained, unseen, forgotten)
    assert attack(retained, unseen, forgotten.flip(0)) == result
    without = attack(retained, unseen, torch.zeros(0))
    assert without.efficacy is None
    assert without.attacker_accuracy == result.attacker_accuracy


# randomness


def test_the_draw_depends_on_its_generator_alone() -> None:
    data = beta(0, "r", 6, 1, 300), beta(0, "t", 3, 1, 100), beta(0, "f", 4, 1, 50)
    state = np.random.get_state()  # noqa: NPY002
    first = attack(*data, seed=1)
    assert attack(*data, seed=1) == first
    assert attack(*data, seed=2) != first
    assert all(np.array_equal(a, b) for a, b in zip(state, np.random.get_state(), strict=True))  # noqa: NPY002


def test_every_draw_is_another() -> None:
    data = beta(0, "r", 6, 1, 300), beta(0, "t", 3, 1, 100), beta(0, "f", 4, 1, 50)
    often = membership_attack(*data, numpy_generator(0, "attack"), draws=30)
    assert often.num_draws == 30
    assert often.attacker_accuracy_std > 0
    assert often != attack(*data)


# errors


@pytest.mark.parametrize(("n_r", "n_t"), [(1, 10), (10, 0)])
def test_too_few_to_train_and_to_check(n_r: int, n_t: int) -> None:
    message = f"got {n_r} members and {n_t} non-members; expected at least 2 of each"
    with pytest.raises(ValueError, match=message):
        attack(torch.ones(n_r), torch.zeros(n_t), torch.ones(1))


# damage is noticed


def test_an_attacker_with_exchanged_sides_would_be_noticed() -> None:
    """Members at 1, non-members at 0: what lies at 1 is called a member, what lies at 0 is not."""
    assert attack(torch.ones(20), torch.zeros(20), torch.ones(4)).efficacy == 0.0
    assert attack(torch.ones(20), torch.zeros(20), torch.zeros(4)).efficacy == 100.0

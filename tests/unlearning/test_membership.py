"""unlearning/membership.py: the attacker by hand and by its definition, and whether it admits to guessing."""

from itertools import product
from math import comb
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.svm import SVC
from torch import Tensor

from strategies.seeds import numpy_generator, torch_generator
from unlearning.membership import MembershipResult, guessing_bound, membership_attack


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
    """Members at probability 1, non-members at 0: the attacker is always right.

    Of the four forgotten examples, three at 0 and one at 1, it calls three non-members: efficacy 75 %.
    """
    result = attack(torch.ones(20), torch.zeros(20), torch.tensor([0.0, 0.0, 0.0, 1.0]))
    assert result.attacker_accuracy == 100.0
    assert result.efficacy == 75.0
    assert result.meaningful


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


def test_efficacy_and_accuracy_equal_the_definition_written_out() -> None:
    """Fit the same classifier on the same halves, and count by hand which answers are right."""
    retained, unseen, forgotten = beta(1, "r", 8, 1, 50), beta(1, "t", 3, 1, 30), beta(1, "f", 5, 1, 25)
    generator = numpy_generator(0, "attack")
    members = [float(retained[i]) for i in generator.permutation(50)[:30]]
    others = [float(unseen[i]) for i in generator.permutation(30)[:30]]
    svc: Any = SVC(C=3, kernel="rbf", gamma="auto", random_state=0)  # type: ignore[no-untyped-call]
    svc.fit([[p] for p in members[:15] + others[:15]], [1] * 15 + [0] * 15)
    caught = sum(svc.predict([[p]])[0] == 1 for p in members[15:])
    cleared = sum(svc.predict([[p]])[0] == 0 for p in others[15:])
    passed = sum(svc.predict([[float(p)]])[0] == 0 for p in forgotten)
    result = attack(retained, unseen, forgotten)
    assert result.attacker_accuracy == pytest.approx(100 * (caught + cleared) / 30)
    assert result.efficacy == pytest.approx(100 * passed / 25)
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


def test_an_overfitted_network_gives_its_members_away() -> None:
    """A network fitted to random labels knows them alone: members are found, the forgotten among them.

    The same architecture, trained without the forgotten examples, treats those as it treats unseen ones.
    """
    x = torch.randn(180, 20, generator=torch_generator(0, "x"))
    y = torch.randint(2, (180,), generator=torch_generator(0, "y"))
    retained, forgotten, unseen = slice(0, 60), slice(60, 120), slice(120, 180)
    results = []
    for trained_on in (slice(0, 120), retained):
        probability = overfit(x[trained_on], y[trained_on], x, y)
        results.append(attack(probability[retained], probability[unseen], probability[forgotten]))
    original, retrained = results
    assert original.meaningful
    assert retrained.meaningful
    assert original.efficacy is not None
    assert retrained.efficacy is not None
    assert original.efficacy < 5.0
    assert retrained.efficacy > 40.0


def overfit(x: Tensor, y: Tensor, x_all: Tensor, y_all: Tensor) -> Tensor:
    """Fit random features by least squares; return every example's sigmoid probability of its label."""
    weights = torch.randn(20, 400, generator=torch_generator(0, "features"), dtype=torch.float64)
    solution = torch.linalg.pinv(torch.tanh(x.double() @ weights)) @ (10.0 * (2.0 * y - 1.0).double())
    margin: Tensor = torch.tanh(x_all.double() @ weights) @ solution * (2.0 * y_all - 1.0)
    return margin.sigmoid().float()


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


def test_the_penalty_reaches_the_classifier() -> None:
    data = beta(0, "r", 6, 1, 300), beta(0, "t", 3, 1, 100), beta(0, "f", 4, 1, 50)
    weak, strong = (membership_attack(*data, numpy_generator(0, "attack"), c=c) for c in (0.001, 100.0))
    assert weak != strong


# errors


@pytest.mark.parametrize(("n_r", "n_t"), [(1, 10), (10, 0)])
def test_too_few_to_train_and_to_check(n_r: int, n_t: int) -> None:
    message = f"got {n_r} members and {n_t} non-members; expected at least 2 of each"
    with pytest.raises(ValueError, match=message):
        attack(torch.ones(n_r), torch.zeros(n_t), torch.ones(1))


# damage is noticed


def test_an_attacker_with_exchanged_labels_would_be_noticed() -> None:
    """Members and non-members exchanged: the forgotten that look like members are then called non-members."""
    assert attack(torch.zeros(20), torch.ones(20), torch.ones(4)).efficacy == 100.0
    assert attack(torch.ones(20), torch.zeros(20), torch.ones(4)).efficacy == 0.0

"""Areas and rates against counting every pair, and by hand."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from unlearning.audit.roc import areas, auc, balanced_accuracy, true_positive_rate

few = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


@given(few, few)
def test_the_area_counts_every_pair(above: list[int], below: list[int]) -> None:
    wins = sum((a > b) + 0.5 * (a == b) for a in above for b in below)
    assert auc(np.array(above, float), np.array(below, float)) == pytest.approx(
        wins / (len(above) * len(below))
    )


def test_rows_with_ties_and_without_are_counted_alike() -> None:
    generator = np.random.default_rng(0)
    above, below = generator.normal(size=(6, 40)), generator.normal(size=(6, 30))
    above[::2], below[::2] = np.round(above[::2]), np.round(below[::2])
    wins = above[:, :, None] - below[:, None, :]
    counted = (wins > 0).mean(axis=(1, 2)) + 0.5 * (wins == 0).mean(axis=(1, 2))
    np.testing.assert_allclose(areas(above, below), counted, rtol=1e-12)


def test_without_one_of_the_two_there_is_no_area() -> None:
    with pytest.raises(ValueError, match="got 0 positives and 2 negatives"):
        auc(np.zeros(0), np.zeros(2))


@given(few, few, st.sampled_from([0.1, 0.25, 0.5]))
def test_no_more_negatives_than_allowed_are_above_the_cut(
    above: list[int], below: list[int], share: float
) -> None:
    """The slow reference tries each value as a cut, and takes the best allowed one."""
    positives, negatives = np.array(above, float), np.array(below, float)
    found = true_positive_rate(positives, negatives, share)
    if len(below) * share < 1:
        assert found is None
        return
    allowed = [cut for cut in {*above, *below, -4} if np.mean(negatives > cut) <= share]
    assert found == max(float(np.mean(positives > cut)) for cut in allowed)


def test_a_balanced_accuracy_by_hand() -> None:
    """Two of three positives are above 0 and one at it; one of four negatives is above."""
    found = balanced_accuracy(np.array([1.0, 2.0, 0.0]), np.array([-1.0, 3.0, -2.0, -2.0]))
    assert found == pytest.approx(0.5 * (2.5 / 3 + 0.75))

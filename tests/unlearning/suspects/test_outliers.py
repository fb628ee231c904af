"""unlearning/suspects/outliers.py: which of several numbers is too large to belong to the others."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, strategies as st

from unlearning.student_t import upper_tail
from unlearning.suspects.outliers import (
    LEAST,
    Values,
    num_steps,
    p_values,
    scores_of,
    without_low_outliers,
)

NUMBERS = st.lists(st.integers(-50, 50), min_size=1, max_size=14).map(lambda found: np.array(found, float))


def slow(values: list[float]) -> tuple[dict[float, float], dict[float, float]]:
    """Return score and p of each value, all different: one step after the other, as the docstring says."""
    middle = statistics.median(values)
    usual = 1.4826 * statistics.median(abs(value - middle) for value in values)
    lowest = middle - 4 * usual if usual else min(values)
    names = sorted(values, reverse=True)
    ranked, looked_at = [max(value, lowest) for value in names], (len(values) - 1) // 3
    scores, ps = [], []
    for place, value in enumerate(ranked):
        below = ranked[place + 1 :] if place < looked_at else ranked[looked_at:]
        mean = sum(below) / len(below)
        spread = math.sqrt(sum((each - mean) ** 2 for each in below) / max(len(below) - 1, 1))
        t = (value - mean) / (spread * math.sqrt(1 + 1 / len(below))) if value != mean else 0.0
        scores.append(t)
        tail = float(upper_tail(np.array([t]), np.array([max(len(below) - 1, 1)]))[0])
        ps.append((len(below) + 1) * tail * (1 + 5 / len(values)) if place < looked_at else 1.0)
    return (
        {value: max(scores[place:]) for place, value in enumerate(names)},
        {
            value: min(1.0, *ps[place:looked_at], ps[place]) if place < looked_at else 1.0
            for place, value in enumerate(names)
        },
    )


# by hand


def test_four_values_by_hand() -> None:
    """Below 5 lie −1, 0, 1: mean 0, s = 1, m = 3. t = 5 / √(4/3); P(T₂ > t) = ½ (1 − t/√(2 + t²))."""
    values = np.array([0.0, 5.0, -1.0, 1.0])
    t = 5 / math.sqrt(4 / 3)
    assert scores_of(values) == pytest.approx([0.0, t, -1 / math.sqrt(4 / 3), 1 / math.sqrt(4 / 3)])
    tail = (1 - t / math.sqrt(2 + t * t)) / 2
    assert p_values(values) == pytest.approx([1.0, 4 * tail * (1 + 5 / 4), 1.0, 1.0])


def test_two_that_are_alike_do_not_hide_each_other() -> None:
    """Against all nine others the larger is 2.6 deviations out; against the eight honest ones, far more."""
    values = np.array([20.0, 20.5, 0.1, -0.4, 0.3, 0.9, -0.8, -0.2, 0.0, 0.4])
    assert (p_values(values) < 0.001).tolist() == [True, True] + 8 * [False]
    assert (values[1] - np.delete(values, 1).mean()) / np.delete(values, 1).std(ddof=1) < 3


def test_one_that_is_too_small_hides_none_that_is_too_large() -> None:
    """Of −900, −1, 0, 0.5, 1, 40: median 0.25, deviation 1.4826 · 1, so that −900 counts as 0.25 − 5.93."""
    values = np.array([0.0, 40.0, -900.0, 1.0, -1.0, 0.5])
    raised = 0.25 - 4 * 1.4826
    assert without_low_outliers(values).tolist() == pytest.approx([0.0, 40.0, raised, 1.0, -1.0, 0.5])
    assert p_values(values)[1] < 0.01


# slow reference and properties


@given(NUMBERS)
def test_the_same_as_step_by_step(values: Values) -> None:
    values = values + np.arange(len(values)) / 1024  # All different
    if len(values) == 1:
        assert (scores_of(values).tolist(), p_values(values).tolist()) == ([0.0], [1.0])
        return
    scores, ps = slow(values.tolist())
    assert scores_of(values) == pytest.approx([scores[v] for v in values.tolist()], rel=1e-6, abs=1e-6)
    assert p_values(values) == pytest.approx([ps[v] for v in values.tolist()], rel=1e-6, abs=1e-9)


@given(NUMBERS, st.integers(-100, 100), st.sampled_from([0.5, 1.0, 8.0]))
def test_shift_and_scale_do_not_matter_and_larger_is_worse(values: Values, shift: int, scale: float) -> None:
    values = values + np.arange(len(values)) / 1024  # All different
    found = scores_of(values)
    assert scores_of(scale * values + shift) == pytest.approx(found, rel=1e-6, abs=1e-6)
    assert p_values(scale * values + shift) == pytest.approx(p_values(values), rel=1e-6, abs=1e-9)
    order = np.argsort(values, kind="stable")
    assert (np.diff(found[order]) >= -1e-9).all()
    assert (np.diff(p_values(values)[order]) <= 1e-12).all()


@given(NUMBERS)
def test_rows_are_judged_apart(values: Values) -> None:
    values = values + np.arange(len(values)) / 1024  # All different
    both = np.stack([values, values[::-1]])
    assert scores_of(both)[1] == pytest.approx(scores_of(values)[::-1], abs=1e-9)
    assert p_values(both)[1] == pytest.approx(p_values(values)[::-1], abs=1e-12)


# the level


@pytest.mark.parametrize("count", [4, 7, 10, 15, 40])
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_false_alarms_are_as_rare_as_is_said(count: int, level: float) -> None:
    """Of 6,000 sets; three standard deviations of that count are allowed for."""
    values = np.random.default_rng(count).normal(size=(6000, count))
    rate = float((p_values(values).min(axis=1) <= level).mean())
    assert rate <= level + 3 * math.sqrt(level * (1 - level) / 6000)
    assert rate > level / 5


def test_too_few_values_are_never_told_apart() -> None:
    assert num_steps(LEAST - 1) == 0 < num_steps(LEAST)
    assert p_values(np.array([0.0, 0.1, 1e6])).tolist() == [1.0, 1.0, 1.0]
    assert scores_of(np.full(9, 2.5)).tolist() == 9 * [0.0]

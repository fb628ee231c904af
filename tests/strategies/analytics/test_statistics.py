"""Statistics as sums of integer vectors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from strategies.analytics.settings import AnalyticsSettings, Column, Statistic
from strategies.analytics.statistics import Integers, Question
from strategies.core.secret_random import RandomStream

STATISTICS: list[Statistic] = ["count", "histogram", "mean", "quantile", "heavy-hitters"]


def question(statistic: Statistic, column: Column = "label", **more: float) -> Question:
    return Question(AnalyticsSettings(statistic=statistic, column=column, **more), num_groups=4)  # type: ignore[arg-type]


def summed(asked: Question, *clients: list[float]) -> Integers:
    parts = [asked.vector(torch.tensor(values)) for values in clients]
    total: Integers = np.sum(parts, axis=0)
    return total


def test_worked_by_hand() -> None:
    """Labels 0 0 1 and 1 3 3 3: counts 2 2 0 3 of 7; mean 11/7; the 4th of 7 is a 1; most often 3."""
    clients = [0.0, 0.0, 1.0], [1.0, 3.0, 3.0, 3.0]
    answers = {s: question(s).answer(summed(question(s), *clients)) for s in STATISTICS}
    assert answers["count"] == {"count": 7}
    assert answers["histogram"] == {"bins": [0.0, 1.0, 2.0, 3.0], "counts": [2, 2, 0, 3]}
    assert answers["mean"] == {"count": 7, "mean": pytest.approx(11 / 7)}
    assert answers["quantile"] == {"quantile": 0.5, "value": 1.0}
    assert answers["heavy-hitters"]["heavy-hitters"][0] == {"value": 3.0, "count": 3}
    assert len(answers["heavy-hitters"]["heavy-hitters"]) == 3


def test_bins_by_hand() -> None:
    """Four bins of [0, 2]: 0.4 | 0.5 0.9 | – | 1.5, and 5 counts as 2."""
    asked = question("histogram", "brightness", low=0.0, high=2.0, bins=4)
    assert summed(asked, [0.4, 0.5, 0.9], [1.5, 5.0]).tolist() == [1, 2, 0, 2]
    assert asked.answer(summed(asked, [0.4]))["bins"] == [0.0, 0.5, 1.0, 1.5]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=20), min_size=1, max_size=6))
def test_a_split_of_the_data_makes_no_difference(clients: list[list[int]]) -> None:
    """The sum over clients is what one client with all examples would say."""
    pooled = [float(v) for values in clients for v in values]
    for statistic in STATISTICS:
        asked = question(statistic)
        split = summed(asked, *[[float(v) for v in values] for values in clients])
        assert np.array_equal(split, summed(asked, pooled))


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.floats(0, 1))
def test_a_quantile_is_that_of_sorted_values(values: list[int], share: float) -> None:
    asked = question("quantile", quantile=share)
    place = max(1, math.ceil(share * len(values) - 1e-9))
    answer = asked.answer(summed(asked, [float(v) for v in values]))
    assert answer["value"] == sorted(values)[place - 1]


def test_one_example_changes_the_vector_by_the_sensitivity_at_most() -> None:
    for statistic in STATISTICS:
        asked = question(statistic)
        change = summed(asked, [1.0, 3.0, 2.0]) - summed(asked, [1.0, 2.0])
        assert np.abs(change).sum() <= asked.sensitivity


def test_noise_of_all_sharers_is_discrete_laplace() -> None:
    """At ε = 1: variance 2e^-1/(1 − e^-1)² = 1.841, P(0) = (1 − e^-1)/(1 + e^-1) = 0.462."""
    asked = Question(AnalyticsSettings(epsilon=1.0), num_groups=20_000)
    stream = RandomStream.seeded(1, "noise")
    total = np.sum([asked.noise(4, stream) for _ in range(4)], axis=0)
    assert total.var() == pytest.approx(1.841, abs=0.12)
    assert (total == 0).mean() == pytest.approx(0.462, abs=0.015)
    assert abs(total.mean()) < 0.05


def test_no_noise_without_a_budget() -> None:
    assert not question("histogram").noise(3, RandomStream.seeded(1, "noise")).any()


def test_noise_can_leave_nothing_to_divide_by() -> None:
    assert question("mean").answer(np.array([-1, 7])) == {"count": -1, "mean": None}
    assert question("quantile").answer(np.array([-1, 0, 0, 0]))["value"] is None

"""The learning rate of each step against arithmetic by hand and torch's own schedulers."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st

from strategies.client.settings import TrainSettings


def settings(**values: Any) -> TrainSettings:
    return TrainSettings.model_validate({"learning_rate": 0.8, **values})


def whole_run(train: TrainSettings, rounds: int, steps: int) -> list[float]:
    """Return the rates of all steps of a run, in their order."""
    return [rate for number in range(1, rounds + 1) for rate in train.rates(number, rounds, steps)]


def of_torch(make: Any, count: int) -> list[float]:
    """Return the rates that a scheduler of torch's gives one step after the other, from 0.8 on."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.8)
    scheduler, rates = make(optimizer), []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_a_cosine_by_hand() -> None:
    """Two rounds of two steps: at 0, ¼, ½ and ¾ of half a wave, from 0.8 to a quarter of that, 0.2."""
    at = [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    expected = [0.2 + 0.6 * height for height in at]
    assert whole_run(settings(schedule="cosine", schedule_final=0.25), 2, 2) == pytest.approx(expected)


def test_drops_by_hand() -> None:
    """Every 1½ rounds to a half: within the second round, and with the fourth."""
    train = settings(schedule="step", schedule_factor=0.5, schedule_period=1.5)
    assert [train.rates(number, 4, 2) for number in (1, 2, 3, 4)] == [
        [0.8, 0.8],
        [0.8, 0.4],
        [0.4, 0.4],
        [0.2, 0.2],
    ]


def test_without_a_period_it_drops_at_each_third() -> None:
    train = settings(schedule="step", schedule_factor=0.5)
    assert whole_run(train, 6, 1) == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2]
    assert whole_run(train, 1, 3) == [0.8, 0.4, 0.2]


def test_a_warm_up_by_hand() -> None:
    """Over 1½ rounds of two steps: a third more with each; it multiplies the schedule."""
    rising = [0.8 / 3, 1.6 / 3, 0.8, 0.8]
    assert whole_run(settings(warm_up=1.5), 2, 2) == pytest.approx(rising)
    falling = whole_run(settings(schedule="cosine"), 2, 2)
    both = [a * b / 0.8 for a, b in zip(rising, falling, strict=True)]
    assert whole_run(settings(schedule="cosine", warm_up=1.5), 2, 2) == pytest.approx(both)


@given(st.integers(1, 5), st.integers(1, 5), st.floats(0, 1))
def test_a_cosine_is_torchs_over_all_steps(rounds: int, steps: int, final: float) -> None:
    count = rounds * steps
    expected = of_torch(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, count, 0.8 * final), count)
    found = whole_run(settings(schedule="cosine", schedule_final=final), rounds, steps)
    assert found == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 7), st.floats(0.1, 1))
def test_drops_are_torchs_over_all_steps(rounds: int, steps: int, every: int, factor: float) -> None:
    """A period of `every` steps, in rounds."""
    count = rounds * steps
    expected = of_torch(lambda o: torch.optim.lr_scheduler.StepLR(o, every, factor), count)
    train = settings(schedule="step", schedule_factor=factor, schedule_period=every / steps)
    assert whole_run(train, rounds, steps) == pytest.approx(expected)


@given(st.integers(1, 9), st.integers(0, 5), st.sampled_from([0.5, 0.9, 1.0]))
def test_neutral_values_are_the_constant_rate_to_the_bit(number: int, steps: int, decay: float) -> None:
    rate = 0.8 * decay ** (number - 1)
    assert settings(lr_decay=decay).rates(number, 9, steps) == [rate] * steps
    for neutral in (
        {"schedule": "cosine", "schedule_final": 1.0},
        {"schedule": "step", "schedule_factor": 1.0},
        {"schedule": "step", "schedule_period": 9.0},
    ):
        assert settings(**neutral).rates(number, 9, steps) == [0.8] * steps


@given(
    st.sampled_from(["constant", "step", "cosine"]),
    st.integers(1, 6),
    st.integers(1, 6),
    st.floats(0, 3),
    st.integers(0, 9),
)
def test_rates_are_positive_and_no_higher_than_told(
    schedule: str, rounds: int, steps: int, warm_up: float, number: int
) -> None:
    """Also outside of the run's rounds; without a warm-up they never rise."""
    train = settings(schedule=schedule, warm_up=warm_up)
    found = train.rates(number, rounds, steps)
    assert len(found) == steps
    assert all(0 < rate <= 0.8 for rate in found)
    falling = whole_run(settings(schedule=schedule), rounds, steps)
    assert falling == sorted(falling, reverse=True)


def test_rounds_after_the_last_are_like_the_last() -> None:
    train = settings(schedule="cosine")
    assert train.rates(5, 3, 4) == train.rates(3, 3, 4) != train.rates(2, 3, 4)


def test_the_rate_of_a_round_is_that_of_a_single_step() -> None:
    """At the beginning of the second of four rounds; a warm-up has risen to the round's end."""
    assert settings(schedule="cosine").in_round(3, 4).learning_rate == pytest.approx(0.4)
    assert settings(warm_up=4).in_round(3, 4).learning_rate == pytest.approx(0.6)
    assert settings(lr_decay=0.5).in_round(3, 4).learning_rate == 0.2

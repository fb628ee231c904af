"""app/workflows/judging.py: which round is the best, and when there was no improvement for long enough."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings, strategies as st

from app.config.settings import RunSettings
from app.workflows.judging import Criterion, Judge, criterion_of
from strategies.core.errors import BadInput
from strategies.figures import Figures
from strategies.task import CLASSIFICATION
from strategies.tasks.regression import Regression

ACCURACY = Criterion("accuracy", higher_is_better=True)
LOSS = Criterion("loss", higher_is_better=False)


def judged(values: Sequence[float], criterion: Criterion = ACCURACY, **keys: object) -> tuple[Judge, int]:
    """Return a judge after rounds with these figures, and the round that training ended with."""
    judge = Judge(RunSettings.model_validate(keys), criterion)
    for server_round, value in enumerate(values, start=1):
        judge.judge(server_round, {criterion.key: value, "test-accuracy": 100.0 - value})
        if judge.ends(server_round):
            return judge, server_round
    return judge, len(values)


def test_worked_by_hand() -> None:
    """Accuracy rises to 71.6 in round 2 and falls to 55.4: round 2 stays, and after two more it is over."""
    fallen = [60.3, 71.6, 66.0, 58.1, 55.4]
    judge, last = judged(fallen, keep="best")
    assert (judge.best, judge.value, judge.chosen(last)) == (2, 71.6, 2)
    judge, last = judged(fallen, keep="best", stop=2)
    assert (last, judge.chosen(last)) == (4, 2)
    judge, last = judged(fallen, stop=2)
    assert (last, judge.chosen(last)) == (4, 4)  # The last one is kept
    judge, last = judged(fallen, LOSS, keep="best")
    assert judge.chosen(last) == 5  # Of a loss, the lowest


def test_of_equal_rounds_the_first_is_kept() -> None:
    judge, last = judged([50.0, 70.0, 70.0, 60.0], keep="best", stop=2)
    assert (last, judge.chosen(last)) == (4, 2)


def test_a_round_without_the_figure_is_no_improvement() -> None:
    judge, last = judged([math.nan, math.inf, math.nan], keep="best", stop=1)
    assert (judge.best, last, judge.chosen(last)) == (0, 3, 3)  # Nothing to judge by: the last
    assert not judge.judge(4, {"test-accuracy": 99.0})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(0, 3), st.booleans())
def test_like_the_slow_reference(values: list[int], stop: int, higher: bool) -> None:
    """The reference looks at all rounds so far, anew after each."""
    criterion = Criterion("accuracy", higher)
    judge, last = judged([float(value) for value in values], criterion, keep="best", stop=stop)
    expected = len(values)
    for so_far in range(1, len(values) + 1):
        seen = values[:so_far]
        if stop and so_far - 1 - seen.index(max(seen) if higher else min(seen)) >= stop:
            expected = so_far
            break
    seen = values[:expected]
    assert last == expected
    assert judge.chosen(last) == seen.index(max(seen) if higher else min(seen)) + 1


def test_what_a_checkpoint_keeps_is_taken_up() -> None:
    judge, _ = judged([60.0, 71.6, 66.0], keep="best")
    again = Judge(RunSettings(keep="best"), ACCURACY)
    again.restore(judge.to_json())
    assert not again.judge(4, {ACCURACY.key: 71.0})
    assert again.judge(5, {ACCURACY.key: 72.0})


def test_the_headline_is_the_default_and_its_direction_is_the_tasks() -> None:
    figures = Figures(CLASSIFICATION, 3, 3, (), "accuracy")
    assert criterion_of(RunSettings(keep="best"), figures) == ACCURACY
    assert criterion_of(RunSettings(keep="best", keep_by="loss"), figures) == LOSS
    errors = Figures(Regression(1.0), 1, 0, ("mae", "r2"), "mae")
    assert criterion_of(RunSettings(keep="best"), errors) == Criterion("mae", higher_is_better=False)
    assert criterion_of(RunSettings(keep="best", keep_by="r2"), errors).higher_is_better


def test_an_unknown_figure_is_refused() -> None:
    figures = Figures(CLASSIFICATION, 3, 3, (), "accuracy")
    with pytest.raises(BadInput, match=r'run\.keep-by: given "auroc".*has accuracy, loss'):
        criterion_of(RunSettings(keep="best", keep_by="auroc"), figures)

"""The attack on the pair of models where the answer is known."""

import numpy as np

from unlearning.audit.three_classes import told_apart


def margins(*means: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(int(sum(means)))
    first, second, third = (generator.normal(mean, 1.0, 200) for mean in means)
    return first, second, third


def test_a_fall_between_the_two_models_tells_who_was_forgotten() -> None:
    found = told_apart(margins(6, 6, 0), margins(0, 6, 0), 0)
    assert found is not None
    assert found > 95


def test_models_that_know_nothing_leave_a_guess() -> None:
    found = told_apart(margins(0, 0, 0), margins(0, 0, 0), 0)
    assert found is not None
    assert abs(found - 100 / 3) < 8


def test_classes_count_equally_and_too_few_examples_give_nothing() -> None:
    """Of the 200 retained as many are taken as are forgotten, so that to call all retained is no gain."""
    before, after = margins(0, 0, 0), margins(0, 0, 0)
    few = told_apart((before[0][:20], *before[1:]), (after[0][:20], *after[1:]), 0)
    assert few is not None
    assert few < 60
    assert told_apart((before[0][:4], *before[1:]), (after[0][:4], *after[1:]), 0) is None

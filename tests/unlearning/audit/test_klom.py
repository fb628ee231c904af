"""Divergences of margins against numbers worked by hand and against integrals."""

import numpy as np
import pytest

from unlearning.audit.klom import divergences, margin_divergence


def test_two_normal_laws_by_hand() -> None:
    """Means 1 and 0, variances 2 and 8: ½ (log 4 + (2 + 1) / 8 − 1)."""
    found = divergences(np.array([[0.0], [2.0]]), np.array([[-2.0], [2.0]]))
    assert found.tolist() == pytest.approx([0.5 * (np.log(4) + 3 / 8 - 1)])


def test_the_variance_is_pooled_over_examples() -> None:
    """Variances 2 and 0 of one side become 1, those of the other are 1: both examples have ½ Δ²."""
    ours = np.array([[0.0, 5.0], [2.0, 5.0]])
    theirs = np.array([[0.0, 3.0], [2.0**0.5, 3.0 + 2.0**0.5]])
    expected = [0.5 * (1 - 0.5**0.5) ** 2, 0.5 * (2 - 0.5**0.5) ** 2]
    assert divergences(ours, theirs).tolist() == pytest.approx(expected)


def test_histograms_of_many_models_come_near_the_integral() -> None:
    """KL(N(1, 1) ‖ N(0, 1)) is ½; bins and one count spread over all take a little."""
    generator = np.random.default_rng(0)
    ours, theirs = (generator.normal(mean, 1.0, (20_000, 3)) for mean in (1.0, 0.0))
    assert divergences(ours, theirs).tolist() == pytest.approx([0.5] * 3, abs=0.05)


def test_equal_laws_of_few_models_are_apart_by_chance_and_the_floor_says_so() -> None:
    generator = np.random.default_rng(0)
    found = margin_divergence(generator.normal(size=(16, 400)), generator.normal(size=(16, 400)))
    assert found is not None
    assert (found.models, found.examples) == (8, 400)
    assert found.unlearned[95] == pytest.approx(found.floor[95], rel=0.35)
    assert found.floor[95] > 0.3
    assert found.to_json()["unlearned"][99] > found.unlearned[95]


def test_models_of_one_seed_are_not_compared_with_each_other() -> None:
    """A method that gives the retrained model of its seed has the floor, and not 0, which is below it."""
    retrained = np.random.default_rng(0).normal(size=(16, 400))
    found = margin_divergence(retrained, retrained)
    assert found is not None
    assert found.unlearned == found.floor
    assert found.floor[95] > 0.3


def test_a_model_that_is_merely_bad_on_the_forgotten_is_far_from_retraining() -> None:
    generator = np.random.default_rng(0)
    found = margin_divergence(generator.normal(-5.0, 1.0, (16, 40)), generator.normal(0.0, 1.0, (16, 40)))
    assert found is not None
    assert found.unlearned[95] > 20 * found.floor[95]


@pytest.mark.parametrize(("ours", "theirs"), [((8, 3), (3, 3)), ((3, 3), (8, 3)), ((8, 0), (8, 0))])
def test_too_little_gives_nothing(ours: tuple[int, int], theirs: tuple[int, int]) -> None:
    assert margin_divergence(np.zeros(ours), np.zeros(theirs)) is None

"""U-LiRA where the answer is known: normal laws, models that know all by heart, and ones that know nothing.

Margins are made up; tests of the audit have those of trained models.
"""

import itertools
import statistics

import numpy as np
import pytest

from unlearning.audit.likelihood_ratio import exposures, likelihood_ratios, ratios, ratios_of
from unlearning.audit.roc import Scores, auc

PAIRS, EXAMPLES = 16, 30


def drawn(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def laws(generator: np.random.Generator, shift: float, pairs: int = PAIRS) -> tuple[Scores, Scores]:
    """Margins whose mean differs from example to example; those of a model share a part."""
    base = 3.0 * generator.normal(size=EXAMPLES)
    ours, theirs = (
        base + 0.3 * generator.normal(size=(pairs, 1)) + generator.normal(size=(pairs, EXAMPLES))
        for _ in range(2)
    )
    return ours + shift, theirs


def density(value: float, law: list[float]) -> float:
    """Of the normal law that two values fit, both moments worked out by the standard library."""
    return statistics.NormalDist(statistics.mean(law), statistics.stdev(law)).pdf(value)


def test_a_pair_is_judged_by_the_other_pairs_alone() -> None:
    """A single example, so that its variances are its own: a slow reference."""
    unlearned, retrained = [1.0, 2.0, 4.0], [0.0, 0.5, -1.0]
    ours, theirs = ratios(np.array(unlearned)[:, None], np.array(retrained)[:, None])
    for k in range(3):
        left, right = (
            [value for i, value in enumerate(values) if i != k] for values in (unlearned, retrained)
        )
        for found, value in ((ours[k, 0], unlearned[k]), (theirs[k, 0], retrained[k])):
            assert found == pytest.approx(np.log(density(value, left) / density(value, right)))


def test_a_further_model_is_judged_by_all_pairs() -> None:
    unlearned, retrained = [1.0, 2.0, 4.0], [0.0, 0.5, -1.0]
    found = ratios_of(np.array([3.0]), np.array(unlearned)[:, None], np.array(retrained)[:, None])
    assert found.item() == pytest.approx(np.log(density(3.0, unlearned) / density(3.0, retrained)))


def test_with_few_pairs_the_variance_is_that_of_all_examples() -> None:
    """Variances 2 and 0 of two examples on one side: both are judged by 1, each with a mean of its own."""
    unlearned = np.array([[0.0, 5.0], [2.0, 5.0], [7.0, 7.0]])
    retrained = np.array([[0.0, 0.0], [2.0, 2.0], [7.0, 7.0]])
    ours, _ = ratios(unlearned, retrained)
    law = statistics.NormalDist(5.0, 1.0), statistics.NormalDist(1.0, 2**0.5)
    assert ours[2, 1] == pytest.approx(np.log(law[0].pdf(7.0) / law[1].pdf(7.0)))


def test_the_area_of_two_normal_laws_is_that_of_the_textbook() -> None:
    """With many pairs and laws one deviation apart, an ideal attacker reaches Φ(1/√2) = 0.760."""
    generator = drawn(0)
    ours, theirs = generator.normal(1.0, 1.0, (200, 40)), generator.normal(0.0, 1.0, (200, 40))
    found = likelihood_ratios(ours, theirs, generator, draws=99)
    assert found.area.value == pytest.approx(statistics.NormalDist().cdf(0.5**0.5), abs=0.01)
    assert found.area.low < 0.76 < found.area.high


def test_equal_laws_are_told_apart_in_one_trial_of_a_hundred() -> None:
    """At level 1 %: 40 trials, of which 2 or fewer fail with a probability of 99.3 %; the mean area is ½."""
    found = [likelihood_ratios(*laws(drawn(seed), 0.0, 9), drawn(seed), draws=255) for seed in range(40)]
    assert sum(each.p_value <= 0.01 for each in found) <= 2
    areas = [each.area.value for each in found]
    error = statistics.stdev(areas) / len(areas) ** 0.5
    assert abs(statistics.mean(areas) - 0.5) < 3 * error < 0.05


def test_what_is_remembered_by_heart_is_found_at_once() -> None:
    """A look-up table: the margin of what it has seen is 20, of anything else −1."""
    generator = drawn(1)
    noise = 0.1 * generator.normal(size=(2, PAIRS, EXAMPLES))
    found = likelihood_ratios(20.0 + noise[0], -1.0 + noise[1], generator, draws=199)
    assert (found.area.value, found.accuracy.value) == (1.0, 1.0)
    assert found.rates[0.01] is not None
    assert found.rates[0.01].value == 1.0
    assert found.p_value == found.least_p_value == pytest.approx(1 / 200)


def test_models_that_know_nothing_and_never_differ_are_a_guess() -> None:
    still = np.zeros((4, 5))
    found = likelihood_ratios(still, still, drawn(0))
    assert (found.area.value, found.p_value, found.accuracy.value) == (0.5, 1.0, 0.5)


def test_forgetting_too_much_tells_as_much_as_too_little() -> None:
    less, more = (likelihood_ratios(*laws(drawn(3), shift), drawn(0), draws=199) for shift in (-3.0, 3.0))
    assert min(less.area.value, more.area.value) > 0.9
    assert max(less.p_value, more.p_value) < 0.01
    assert {np.sign(each.direction) for each in less.most_exposed} == {-1.0}


def test_few_pairs_cannot_give_a_small_p_value() -> None:
    """Of four pairs there are 2³ ways to swap; one of them is what was found."""
    found = likelihood_ratios(*laws(drawn(0), 9.0, 4), drawn(0))
    assert found.p_value == found.least_p_value == 1 / 8


def test_all_swaps_against_a_slow_reference() -> None:
    ours, theirs = laws(drawn(5), 0.4, 4)
    ours[:, 0] += 5.0

    def area(a: Scores, b: Scores) -> float:
        return float(np.mean([auc(x, y) for x, y in zip(*ratios(a, b), strict=True)]))

    def strongest(a: Scores, b: Scores) -> float:
        squares = [np.mean(d**2) for d in (a - b).T]
        sizes = [np.sqrt((own + np.mean(squares)) / 2) for own in squares]
        return float(max(abs(np.mean(d)) / size for d, size in zip((a - b).T, sizes, strict=True)))

    figures = []
    for swaps in itertools.product((False, True), repeat=4):
        pairs = [(t, o) if swap else (o, t) for swap, o, t in zip(swaps, ours, theirs, strict=True)]
        swapped = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
        figures.append((area(*swapped), strongest(*swapped)))
    by_area, by_single = (
        [np.mean([other >= each - 1e-12 for other in values]) for each in values]
        for values in zip(*figures, strict=True)
    )
    both = sorted((min(pair), pair[0]) for pair in zip(by_area, by_single, strict=True))
    joint = np.mean([each <= (min(by_area[0], by_single[0]), by_area[0]) for each in both])
    found = likelihood_ratios(ours, theirs, drawn(0))
    assert (found.area_p_value, found.single_p_value) == pytest.approx((by_area[0], by_single[0]))
    assert found.p_value == pytest.approx(joint)
    assert found.single_p_value < found.p_value < found.area_p_value


def test_the_planted_examples_are_the_most_exposed() -> None:
    ours, theirs = laws(drawn(2), 0.0)
    ours[:, [4, 17]] += 6.0
    found = exposures(ours, theirs)
    assert {each.index for each in found[:2]} == {4, 17}
    assert found[0].effect > 3 * found[2].effect
    assert len(found) == EXAMPLES


def test_one_draw_of_a_model_is_no_thirty_draws() -> None:
    """What all examples of a model share widens the interval, which a bootstrap over examples would not."""
    generator = drawn(4)
    shared = 3.0 * generator.normal(size=(2, PAIRS, 1))
    ours, theirs = shared + 0.1 * generator.normal(size=(2, PAIRS, EXAMPLES))
    found = likelihood_ratios(ours, theirs, generator, draws=199).area
    assert found.high - found.low > 0.2


def test_a_rate_needs_enough_negatives_and_all_is_plain_data() -> None:
    ours, theirs = laws(drawn(0), 1.0)
    found = likelihood_ratios(ours[:, :3], theirs[:, :3], drawn(0), draws=99)
    assert found.rates[0.01] is None
    assert found.to_json()["true-positives-at-0.05"]["value"] == found.rates[0.05].value  # type: ignore[union-attr]
    assert found.to_json()["most_exposed"][0].keys() == {"index", "effect", "direction"}


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (np.zeros((4, 2)), np.zeros((3, 2)), "got margins of shapes"),
        (np.zeros((2, 2)), np.zeros((2, 2)), "got 2 pairs of models and 2 examples"),
        (np.zeros((4, 0)), np.zeros((4, 0)), "got 4 pairs of models and 0 examples"),
        (np.full((4, 2), np.inf), np.zeros((4, 2)), "a margin is not finite"),
    ],
)
def test_what_cannot_be_judged_is_refused(ours: Scores, theirs: Scores, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        likelihood_ratios(ours, theirs, drawn(0))

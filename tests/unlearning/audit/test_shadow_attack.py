"""The verdict with shadow models: a fake method never passes, retraining does, too little decides nothing."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from unlearning.audit.likelihood_ratio import LikelihoodRatios, Rate, likelihood_ratios
from unlearning.audit.margins import Margins
from unlearning.audit.roc import Scores
from unlearning.audit.shadow_attack import Baselines, ShadowFindings, ShadowPair, combined, findings, verdict

PAIRS, HARD, EASY, RETAINED, UNSEEN = 16, 8, 32, 30, 25
Model = Callable[[np.random.Generator, float], Margins]


def margins(forgotten: Scores, retained: Scores, unseen: Scores) -> Margins:
    """D_f is spread over two clients; of the second, positions are odd."""
    first = len(forgotten) // 2
    places = np.arange(len(forgotten), dtype=np.int64)
    return Margins(
        {"3": forgotten[:first], "7": forgotten[first:]},
        retained,
        unseen,
        {"3": places[:first], "7": 2 * places[first:] + 1},
    )


def model(generator: np.random.Generator, known: float, exposed: float = 0.0) -> Margins:
    """The first half of D_f is mislabelled: −2 where it was never seen, `known` more where it was learned.

    The other half is easy: its margin is 4 either way. `exposed` is added to the retained examples.
    """
    shared = 0.2 * generator.normal()
    forgotten = np.concatenate([np.full(HARD, -2.0 + known), np.full(EASY, 4.0)])
    parts = (forgotten, np.full(RETAINED, 5.0 + exposed), np.full(UNSEEN, 4.0))
    return margins(*(part + shared + generator.normal(size=len(part)) for part in parts))


def found(seed: int, before: float, after: float, pairs: int = PAIRS, exposed: float = 0.0) -> ShadowFindings:
    generator = np.random.default_rng(seed)
    made = [
        ShadowPair(model(generator, before), model(generator, after, exposed), model(generator, 0.0))
        for _ in range(pairs)
    ]
    result = findings(made, model(generator, after), Baselines(seed, 199))
    assert result is not None
    return result


def fake(seed: int, before: float, pairs: int = PAIRS) -> ShadowFindings:
    """Return what is said of a method that returns the model before."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(pairs):
        at_first = model(generator, before)
        made.append(ShadowPair(at_first, at_first, model(generator, 0.0)))
    result = findings(made, None, Baselines(seed, 199))
    assert result is not None
    return result


def trial(seed: int, before: float, after: float | None) -> str:
    """Return the verdict alone; without `after`, of the models before."""
    generator = np.random.default_rng(seed)

    def models(known: float) -> Scores:
        return np.stack([model(generator, known).all_forgotten for _ in range(PAIRS)])

    at_first, retrained = models(before), models(0.0)
    left = at_first if after is None else models(after)
    both = [likelihood_ratios(part, retrained, generator, draws=127, rates=()) for part in (left, at_first)]
    return verdict(*both)[0]


def test_a_method_that_returns_the_model_before_fails_on_planted_hard_examples() -> None:
    for seed in range(5):
        result = fake(seed, before=6.0)
        assert result.outcome == "fails"
        assert result.text.startswith("fails: an attacker with 16 pairs of shadow models tells the forgotten")
        assert {(each.client, each.position) for each in result.most_exposed[:HARD]} == {
            ("3", place) for place in range(HARD)
        }


def test_a_method_that_returns_the_model_before_never_passes() -> None:
    """Also where the models before know nothing by heart: there is nothing to find, which is no proof."""
    outcomes = [trial(seed, before=0.0, after=None) for seed in range(20)]
    assert "passes" not in outcomes
    assert outcomes.count("undecided") >= 18
    assert "the model before forgetting cannot be told from a retrained one either" in fake(1, 0.0).text


def test_a_method_that_returns_the_model_before_is_told_exactly_as_doing_nothing() -> None:
    """Else swaps of its own could put the two on different sides of the level, and it would pass."""
    for seed, before in ((0, 6.0), (1, 0.6), (2, 0.0)):
        result = fake(seed, before)
        assert result.forgotten == result.nothing


@pytest.mark.parametrize(("tests", "outcome"), [(1, "fails"), (2, "fails"), (5, "undecided")])
def test_several_attacks_share_the_level_on_both_sides(tests: int, outcome: str) -> None:
    """p = 0.004 of a method that does nothing: below 0.01 / 2, above 0.01 / 5, and never a reason to pass."""
    base = fake(0, 6.0).forgotten
    found = replace(base, area=Rate(0.55, 0.52, 0.58), p_value=0.004, least_p_value=0.0005)
    assert verdict(found, found, tests)[0] == outcome


FEW, MANY = 3, 300
"""Examples that are known by heart, and all that were forgotten."""


def few_by_heart(known: float, pairs: int, *, all_before: float = 1.5) -> ShadowFindings:
    """Return what is said where a method forgets all but a few hard examples, 8 deviations apart."""
    generator = np.random.default_rng(0)

    def made(by_heart: float, others: float) -> Margins:
        forgotten = np.concatenate([np.full(FEW, -2.0 + by_heart), np.full(MANY - FEW, 4.0 + others)])
        values = forgotten + 0.2 * generator.normal() + generator.normal(size=MANY)
        return Margins({"3": values}, np.zeros(0), np.zeros(0), {"3": np.arange(MANY)})

    both = [ShadowPair(made(8.0, all_before), made(known, 0.0), made(0.0, 0.0)) for _ in range(pairs)]
    result = findings(both, None, Baselines(0, 399))
    assert result is not None
    return result


def test_a_few_examples_that_are_known_by_heart_fail_however_many_are_forgotten() -> None:
    """The area over 300 examples does not move for 3: it is 0.51, which alone would pass."""
    result = few_by_heart(8.0, PAIRS)
    assert result.forgotten.area.high < 0.53
    assert result.forgotten.area_p_value > 0.01
    assert result.forgotten.single_p_value == result.forgotten.least_p_value
    assert result.outcome == "fails"
    assert result.text.startswith(
        "fails: single examples can be told from never-seen ones; over all of them, an attacker with 16 pairs"
    )
    assert {each.position for each in result.most_exposed[:FEW]} == set(range(FEW))
    assert few_by_heart(0.0, PAIRS).outcome == "passes"


def test_eight_pairs_do_not_pass_what_one_more_would_fail() -> None:
    """Of 128 ways to swap, one other has the larger area by chance: 2 / 128 is above the level."""
    result = few_by_heart(8.0, 8)
    assert result.forgotten.p_value == 2 / 128
    assert result.outcome == "undecided"
    assert "about 9 might decide it" in result.text
    assert few_by_heart(8.0, 9).outcome == "fails"


def test_retraining_passes_in_at_least_38_of_40_trials() -> None:
    outcomes = [trial(seed, before=6.0, after=0.0) for seed in range(40)]
    assert outcomes.count("passes") >= 38
    assert found(0, 6.0, 0.0).text.startswith("passes: ")


def test_to_know_less_than_what_was_never_seen_fails_too() -> None:
    result = found(0, before=6.0, after=-6.0)
    assert result.outcome == "fails"
    assert result.most_exposed[0].direction < 0


def test_so_few_pairs_cannot_decide_and_say_how_many_could() -> None:
    result = found(0, before=6.0, after=6.0, pairs=6)
    assert result.outcome == "undecided"
    assert result.text.startswith("cannot be decided with 6 pairs of shadow models: a verdict at the level")
    assert "needs at least 8" in result.text


def test_a_wide_interval_decides_nothing_and_says_how_many_pairs_might() -> None:
    results = [found(seed, before=6.0, after=1.0, pairs=10) for seed in range(8)]
    unclear = [each for each in results if each.outcome == "undecided" and each.nothing.p_value <= 0.01]
    assert unclear
    assert all("pairs of shadow models; about" in each.text for each in unclear)
    assert not [each for each in results if each.outcome == "passes" and each.forgotten.area.high > 0.6]


@pytest.mark.parametrize(
    ("area", "needed"),
    [
        ((0.55, 0.50, 0.649), 32),  # (0.099 / 0.05)² = 3.92 times as many
        ((0.78, 0.66, 0.89), 9),  # 4.8 standard errors from ½: one more makes p small enough
        ((0.61, 0.43, 0.79), 31),  # 1.2 standard errors, where the level asks for 2.33: 8 (2.33 / 1.198)²
        ((0.5999999, 0.5, 0.9), "more than 10000"),
    ],
)
def test_how_many_pairs_might_decide_by_hand(area: tuple[float, float, float], needed: object) -> None:
    """Always more than there are: an area that can only fail needs no interval below the limit."""
    base = found(0, 6.0, 6.0, pairs=8)
    unclear = replace(base.forgotten, area=Rate(*area), p_value=0.02)
    outcome, text = verdict(unclear, base.nothing)
    assert outcome == "undecided"
    assert f"; about {needed} might decide it" in text


def test_what_the_retained_give_away_is_attacked_too() -> None:
    still, exposed = found(0, 6.0, 0.0), found(0, 6.0, 0.0, exposed=3.0)
    assert still.retained is not None
    assert exposed.retained is not None
    assert still.retained.p_value > 0.01
    assert exposed.retained.p_value <= 0.01


def test_what_is_told_of_examples_that_nobody_trained_on_stands_beside() -> None:
    """A method that makes a model less sure of everything is told by any example, forgotten or not."""
    generator = np.random.default_rng(0)

    def less_sure(known: float) -> Margins:
        made = model(generator, known)
        lowered = {client: values - 2.0 for client, values in made.forgotten.items()}
        return replace(made, forgotten=lowered, unseen=made.unseen - 2.0)

    made = [ShadowPair(model(generator, 6.0), less_sure(0.0), model(generator, 0.0)) for _ in range(PAIRS)]
    result, other = findings(made, None, Baselines(0, 199)), found(0, 6.0, 6.0)
    assert result is not None
    assert result.unseen is not None
    assert other.unseen is not None
    assert abs(result.unseen.area.value - result.forgotten.area.value) < 0.1 < result.unseen.area.value - 0.5
    assert other.unseen.p_value > 0.01 >= other.forgotten.p_value


def test_retraining_s_own_figures_stand_beside() -> None:
    result = found(0, 6.0, 6.0)
    assert result.retraining is not None
    assert result.retraining.pairs == PAIRS // 2
    assert abs(result.retraining.area.value - 0.5) < 0.15 < result.forgotten.area.value - 0.5
    assert found(0, 6.0, 6.0, pairs=5).retraining is None


def test_the_audited_model_is_placed_among_the_shadows() -> None:
    generator = np.random.default_rng(0)
    made = [
        ShadowPair(model(generator, 6.0), model(generator, 6.0), model(generator, 0.0)) for _ in range(PAIRS)
    ]
    for known, low, high in ((6.0, 0.5, 1.0), (0.0, 0.0, 0.5)):
        result = findings(made, model(generator, known), Baselines(0, 99))
        assert result is not None
        assert result.audited is not None
        assert low <= result.audited <= high


def test_a_method_does_not_pass_with_an_audited_model_that_is_not_what_it_leaves() -> None:
    """The shadows were forgotten from, and the model that is certified is the one before."""
    generator = np.random.default_rng(0)
    made = [ShadowPair(*(model(generator, known) for known in (6.0, 0.0, 0.0))) for _ in range(PAIRS)]
    outcomes, texts = {}, {}
    for known in (6.0, 0.0, -6.0):
        result = findings(made, model(generator, known), Baselines(0, 199))
        assert result is not None
        assert result.audited_p_value is not None
        outcomes[known], texts[known] = result.outcome, result.text
        again = combined({"3": result})
        assert again is not None
        assert again.outcome == result.outcome
    assert outcomes == {6.0: "undecided", 0.0: "passes", -6.0: "undecided"}
    assert texts[6.0].startswith("cannot be decided: the audited model itself is not like those that the")


def test_an_audited_model_that_is_what_the_method_leaves_is_as_the_others() -> None:
    """At level 5 %: of 60 trials 3 are expected, and more than 8 with a probability of 0.3 %."""
    below = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        made = [ShadowPair(*(model(generator, known) for known in (6.0, 0.0, 0.0))) for _ in range(6)]
        result = findings(made, model(generator, 0.0), Baselines(0, 9))
        assert result is not None
        assert result.audited_p_value is not None
        below += result.audited_p_value < 0.05
    assert below <= 8


def test_a_pair_about_which_a_client_did_not_answer_is_dropped_and_counted() -> None:
    generator = np.random.default_rng(0)
    made = [ShadowPair(model(generator, 6.0), model(generator, 0.0), model(generator, 0.0)) for _ in range(5)]
    silent = replace(made[2].unlearned, forgotten={"3": made[2].unlearned.forgotten["3"]})
    made[2] = replace(made[2], unlearned=silent)
    result = findings(made, None, Baselines(0, 99))
    assert result is not None
    assert (result.dropped, result.forgotten.pairs) == (1, 4)
    assert findings(made[:3], None, Baselines(0, 99)) is None


def test_one_hiccup_about_the_first_pair_does_not_drop_all_others() -> None:
    generator = np.random.default_rng(0)
    made = [ShadowPair(*(model(generator, known) for known in (6.0, 0.0, 0.0))) for _ in range(6)]
    alone = [replace(each, forgotten={"3": each.forgotten["3"]}) for each in vars(made[0]).values()]
    result = findings([ShadowPair(*alone), *made[1:]], None, Baselines(0, 99))
    assert result is not None
    assert (result.dropped, result.forgotten.pairs, result.clients) == (1, 5, ("3", "7"))


def test_nothing_passes_without_the_part_of_a_client_that_tells_nothing() -> None:
    """Else silence would take what is still known of a client's examples out of a certificate."""
    passed, failed = found(0, 6.0, 0.0), found(0, 6.0, 6.0)
    silent = passed.without_word_of({"12", "7"})
    assert (passed.outcome, silent.outcome) == ("passes", "undecided")
    assert silent.text.startswith("cannot be decided: client 7, 12 told nothing of its examples; of the oth")
    assert failed.without_word_of({"7"}) == failed
    assert passed.without_word_of(()) == passed


def test_doing_nothing_and_retraining_are_attacked_once_for_all_methods(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two methods on the same models: three attacks on what each leaves, and two for both."""
    generator, asked = np.random.default_rng(0), []
    attack = Baselines.attack

    def counted(self: Baselines, ours: Scores, theirs: Scores, *, judged: bool = False) -> LikelihoodRatios:
        asked.append(judged)
        return attack(self, ours, theirs, judged=judged)

    monkeypatch.setattr(Baselines, "attack", counted)
    both = [(model(generator, 6.0), model(generator, 0.0)) for _ in range(6)]
    shared, results = Baselines(0, 49), []
    for known in (0.0, 6.0):
        made = [ShadowPair(before, model(generator, known), retrained) for before, retrained in both]
        results.append((findings(made, None, shared), findings(made, None, Baselines(0, 49))))
    assert all(first is not None and first == alone for first, alone in results)
    each = [True, False, False]  # what the method leaves is judged; retained and unseen examples are not
    once = [*each, True, False]
    assert sorted(asked) == sorted([*each, *once, *once, *once])


def test_without_forgotten_examples_there_is_nothing_to_attack() -> None:
    empty = Margins({}, np.zeros(3), np.zeros(3), {})
    assert findings([ShadowPair(empty, empty, empty)] * 4, None, Baselines(0, 99)) is None


def test_all_is_plain_data() -> None:
    document = json.loads(json.dumps(found(0, 6.0, 6.0).to_json()))
    assert document["divergences"]["forget"]["models"] == PAIRS // 2
    assert document["nothing"]["area"]["value"] > 0.5
    assert document["most-exposed"][0].keys() == {"client", "position", "effect", "direction"}


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_gives_the_same_findings(seed: int) -> None:
    assert found(seed, 6.0, 1.0).to_json() == found(seed, 6.0, 1.0).to_json()

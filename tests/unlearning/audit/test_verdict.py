"""Closer than doing nothing, within the floor, or worse; each with its figures."""

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from tests.unlearning.audit.test_caveats import SHARP, measurement
from unlearning.audit.measurement import Measurement, OutputDistance
from unlearning.audit.membership import MembershipResult
from unlearning.audit.verdict import Verdict, judge, verdict

NAMES = ("before", "after", "retrain")
GUESSING = replace(SHARP, attacker_accuracy=50.0)


def said(
    after: float | None,
    before: float | None,
    floor: float | None = None,
    measured: Measurement | None = None,
    left: Measurement | None = None,
) -> Verdict:
    """Return the verdict where MIA-efficacy adds a point to every disparity."""

    def both(value: float | None) -> tuple[float | None, float | None]:
        return (None if value is None else value + 1.0), value

    original = measured or measurement(membership=GUESSING)
    models = {"before": original, "after": left or measurement(), "retrain": measurement()}
    disparities = {"before": both(before), "after": both(after), "retrain": both(0.0)}
    floors = {} if floor is None else {"retrain-seed-1": both(floor), "retrain-seed-2": both(floor)}
    return verdict(disparities, floors, models, NAMES)


# by hand


def test_closer_than_doing_nothing() -> None:
    found = said(1.8, 15.0, 0.5)
    assert (found.outcome, found.disparity, found.before, found.floor) == ("closer", 1.8, 15.0, 0.5)
    assert found.text == (
        "the forgetting brought the model closer to retraining than doing nothing: disparity 1.80 points "
        "over UA, RA and TA, as the membership attacker only guesses (with MIA 2.80), doing nothing 15.00, "
        "a second retraining 0.50"
    )


def test_as_close_as_another_retraining() -> None:
    found = said(0.4, 15.0, 0.5)
    assert found.outcome == "closer"
    assert found.text.endswith("a second retraining 0.50; it is as close as another retraining")


def test_worse_than_doing_nothing() -> None:
    """Fine-tuning a run pruned to 90 % ended 11.1 from retraining, where doing nothing was 5.7."""
    found = said(11.1, 5.7, 0.5)
    assert found.outcome == "worse"
    assert found.text.startswith(
        "the forgetting left the model further from retraining than doing nothing would have: disparity 11.10"
    )


def test_no_further_from_doing_nothing_than_chance() -> None:
    """Near retraining, there was little to forget; far from it, the forgetting did nothing."""
    near, far = said(0.4, 0.3, 0.5), said(26.0, 25.9, 0.4)
    assert near.outcome == far.outcome == "within-floor"
    assert "so that this audit cannot tell whether anything was forgotten: disparity 0.40" in near.text
    assert "so that the forgetting did not help: disparity 26.00" in far.text


def test_without_a_second_retraining() -> None:
    found = said(1.8, 15.0)
    assert (found.outcome, found.floor) == ("closer", None)
    assert found.text.endswith("without a second retraining to say what chance alone does (audit.seeds)")


def test_outputs_that_moved_away_from_retraining_are_said_whatever_the_rates_say() -> None:
    """KL 0.5 on D_f where doing nothing has 0.2; on D_t it is larger, too, but chance reaches that."""

    def judged(
        after: OutputDistance, before: OutputDistance, second: OutputDistance | None, after_is: float = 1.0
    ) -> Verdict:
        models = {
            "before": replace(measurement(membership=GUESSING), output_distance=before),
            "after": replace(measurement(), output_distance=after),
            "retrain": measurement(),
        }
        floors = {} if second is None else {"retrain-seed-1": (0.5, 0.5)}
        if second is not None:
            models["retrain-seed-1"] = replace(measurement(), output_distance=second)
        both = {"before": (15.0, 15.0), "after": (after_is, after_is), "retrain": (0.0, 0.0)}
        return verdict(both, floors, models, NAMES)

    nothing, away = OutputDistance(0.2, 0.1, 0.15), OutputDistance(0.5, 0.05, 0.2)
    found = judged(away, nothing, OutputDistance(0.3, 0.3, 0.3))
    assert (found.outcome, found.outputs_further) == ("closer", ("forgotten",))
    assert found.text.endswith(
        "; yet its outputs moved away from those of retraining, mean KL in nats 0.5 (before 0.2) on "
        "forgotten examples"
    )
    without = judged(away, nothing, None)
    assert without.outputs_further == ("forgotten", "test")
    assert without.text.endswith("0.5 (before 0.2) on forgotten, 0.2 (before 0.15) on test examples")
    for same in (nothing, OutputDistance()):
        assert judged(same, nothing, None).outputs_further == ()
    assert "outputs" not in judged(nothing, nothing, None).text
    assert "; and its outputs moved away" in judged(away, nothing, None, after_is=20.0).text


def test_the_retrained_model_is_the_reference() -> None:
    models = dict.fromkeys(("before", "retrain"), measurement())
    found = verdict({}, {}, models, ("before", "retrain", "retrain"))
    assert found.outcome == "reference"


def test_nothing_is_concluded_from_what_was_not_measured() -> None:
    for found in (said(None, 15.0, 0.5), said(1.8, None, 0.5)):
        assert (found.outcome, found.text) == ("unknown", "no verdict: UA, RA or TA could not be measured")


def test_mia_counts_where_its_attacker_finds_something() -> None:
    found = said(1.8, 15.0, 0.5, measured=measurement(membership=SHARP))
    assert found.counts_mia
    assert (found.disparity, found.before, found.floor) == (2.8, 16.0, 1.5)
    assert "disparity 2.80 points, doing nothing 16.00, a second retraining 1.50" in found.text


@pytest.mark.parametrize("membership", [GUESSING, None])
def test_mia_does_not_count_where_it_does_not(membership: MembershipResult | None) -> None:
    found = said(1.8, 15.0, 0.5, measured=measurement(membership=membership))
    assert not found.counts_mia
    assert found.disparity == 1.8


def test_a_backdoor_that_is_left_is_said() -> None:
    """Retrained 90 %: 90.9 % is no more than chance, 91.1 % is left."""
    assert "backdoor" not in said(1.8, 15.0, left=measurement(attack_success=90.9)).text
    told = said(1.8, 15.0, left=measurement(attack_success=91.1)).text
    assert told.endswith("; the backdoor still works on 91.1 % of the images (retrained: 90.0 %)")


# properties

points = st.floats(0, 100)


@given(disparity=points, before=points, floor=st.none() | points)
def test_exchanging_the_two_models_exchanges_closer_and_worse(
    disparity: float, before: float, floor: float | None
) -> None:
    opposite = {"closer": "worse", "worse": "closer", "within-floor": "within-floor"}
    assert judge(before, disparity, floor) == opposite[judge(disparity, before, floor)]


@given(disparity=points, before=points, floor=points)
def test_a_larger_floor_never_decides_what_a_smaller_one_left_open(
    disparity: float, before: float, floor: float
) -> None:
    if judge(disparity, before, floor) == "within-floor":
        assert judge(disparity, before, floor + 1.0) == "within-floor"

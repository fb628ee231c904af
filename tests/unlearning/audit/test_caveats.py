"""unlearning/audit/caveats.py: each warning where it belongs, and none where there is nothing to warn of."""

from dataclasses import replace

import pytest

from unlearning.audit.caveats import caveats, mask_caveats
from unlearning.audit.measurement import Measurement, OutputDistance
from unlearning.audit.membership import MembershipResult

SHARP = MembershipResult(
    efficacy=5.0,
    efficacy_std=1.0,
    attacker_accuracy=80.0,
    attacker_accuracy_std=2.0,
    guessing_bound=54.0,
    num_per_side=360,
    num_available=360,
    num_draws=10,
)


def measurement(
    attack_success: float | None = 90.0,
    membership: MembershipResult | None = SHARP,
    num_forget: int = 100,
    num_test: int = 360,
    missing: dict[str, str] | None = None,
) -> Measurement:
    return Measurement(
        test_accuracy=97.0,
        retain_accuracy=98.0,
        unlearning_accuracy=3.0,
        membership=membership,
        attack_success_rate=attack_success,
        client_accuracy={"0": 98.0},
        output_distance=OutputDistance(),
        num_forget=num_forget,
        num_retain=900,
        num_test=num_test,
        num_triggered=320,
        missing=missing or {},
        seconds=0.1,
    )


def said_of(before: Measurement, after: Measurement | None = None) -> list[str]:
    return list(caveats({"before": before, "after": after or measurement()}, "before"))


def test_nothing_to_warn_of() -> None:
    assert said_of(measurement()) == []
    assert said_of(measurement(attack_success=None)) == []


@pytest.mark.parametrize(("rate", "warned"), [(49.9, True), (50.0, False)])
def test_a_backdoor_that_did_not_take(rate: float, warned: bool) -> None:
    notes = said_of(measurement(attack_success=rate))
    assert len(notes) == warned
    assert all("no conclusion on the attack success rate is possible" in note for note in notes)


def test_a_backdoor_that_is_gone_afterwards_is_no_caveat() -> None:
    assert said_of(measurement(), after=measurement(attack_success=0.0)) == []


@pytest.mark.parametrize(("accuracy", "warned"), [(54.0, True), (54.1, False)])
def test_an_attacker_that_guesses(accuracy: float, warned: bool) -> None:
    attack = replace(SHARP, efficacy=45.0, attacker_accuracy=accuracy, guessing_bound=54.0)
    notes = said_of(measurement(membership=attack))
    assert len(notes) == warned
    assert all("54.0 %" in note and "no conclusion on MIA-efficacy" in note for note in notes)


def test_a_capped_attacker() -> None:
    attack = replace(SHARP, num_per_side=2500, num_available=10000)
    (note,) = said_of(measurement(membership=attack))
    assert "used 2,500 of 10,000 members" in note


def test_data_that_is_not_there() -> None:
    server, clients = said_of(measurement(membership=None, attack_success=None, num_test=0, num_forget=0))
    assert "there are no test data" in server
    assert "no client answered for forgotten examples" in clients


def test_clients_that_did_not_answer() -> None:
    missing = {"3": "no answer in 5 s"}
    first, second, comparison = said_of(
        measurement(missing=missing), measurement(missing={**missing, "7": "gone"})
    )
    assert first.startswith("before: 1 did not answer (client 3: no answer in 5 s)")
    assert "over 100 forgotten and 900 retained examples" in first
    assert second.startswith("after: 2 did not answer (client 3: no answer in 5 s; client 7: gone)")
    assert "not all models were measured on the same clients" in comparison


def test_the_same_clients_missing_everywhere_do_not_disturb_the_gaps() -> None:
    assert len(said_of(measurement(missing={"3": "late"}), measurement(missing={"3": "no answer"}))) == 2


def test_a_mask_chosen_by_trained_weights_has_seen_the_data() -> None:
    for origin in ("omp", "imp"):
        assert [note.partition(" was ")[0] for note in mask_caveats(origin)] == [f"the mask ({origin})"]
    assert list(mask_caveats("synflow")) == list(mask_caveats("")) == []

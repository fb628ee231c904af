"""unlearning/audit/measurement.py: all figures of one model by hand, and what is not there is None."""

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from strategies.client.evaluation import evaluate
from strategies.core.errors import LetheError
from strategies.core.examples import Examples, TensorExamples, concatenated
from strategies.core.seeds import numpy_generator, torch_generator
from tests.unlearning.audit_world import DATA, SURE, TEST, CohortStandIn, images, trained_run, weights
from unlearning.audit.caveats import caveats
from unlearning.audit.measurement import Measurement, measure
from unlearning.audit.membership import membership_attack
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import AuditSettings

FORGET_1 = ForgetRequest(clients=("1",))


def measured(
    flat: Tensor,
    request: ForgetRequest = FORGET_1,
    run: TrainedRun | None = None,
    cohort: CohortStandIn | None = None,
    reference: Tensor | None = None,
) -> Measurement:
    stand_in = cohort or CohortStandIn()
    return measure(run or trained_run(), flat, request, stand_in.cohort, AuditSettings(), reference)


# by hand


def test_accuracies_by_hand() -> None:
    """w = ln 3 predicts class 1 at x = 1 and class 0 at x = −1.

    D_t (1, 1), (1, 1), (−1, 0), (−1, 1): 3 of 4 right. D_f, client 1, (1, 0): wrong, UA = 100. D_r: client
    0 has 2 of 2 right, client 10 has 1 of 3: RA = 3/5, the mean over clients is (1 + 1/3) / 2, the worst 1/3.
    """
    result = measured(weights(SURE))
    assert result.test_accuracy == 75.0
    assert result.unlearning_accuracy == 100.0
    assert result.retain_accuracy == 60.0
    assert result.worst_client_accuracy == pytest.approx(100 / 3)
    assert result.mean_client_accuracy == pytest.approx(200 / 3)
    assert (result.num_test, result.num_forget, result.num_retain) == (4, 1, 5)


def test_clients_that_tell_sums_count_in_all_but_the_membership_attack() -> None:
    """As above; but of the retained examples only client 10's three can be members to the attacker."""
    whole, summed = measured(weights(SURE)), measured(weights(SURE), cohort=CohortStandIn(summing=("0", "1")))
    for figure in ("unlearning_accuracy", "retain_accuracy", "client_accuracy", "num_forget", "num_retain"):
        assert getattr(summed, figure) == getattr(whole, figure)
    assert summed.sums_only == ("0", "1")
    assert (whole.sums_only, whole.mia_efficacy is None, summed.mia_efficacy) == ((), False, None)
    notes = list(caveats({"before": summed}, "before"))
    assert any("came from client 0, 1: the membership attack is without these" in note for note in notes)


def test_what_was_forgotten_before_counts_neither_way_by_hand() -> None:
    """Class 0 was forgotten: D_t keeps (1, 1), (1, 1), (−1, 1), of which two are right.

    D_f is client 10's examples of class 1: (1, 1) right, (−1, 1) wrong, UA = 50. D_r is client 0's (1, 1).
    """
    run = replace(trained_run(), forgotten=(ForgetRequest(classes=(0,)),))
    result = measured(weights(SURE), ForgetRequest(clients=("10",)), run)
    assert result.test_accuracy == pytest.approx(200 / 3)
    assert (result.unlearning_accuracy, result.retain_accuracy) == (50.0, 100.0)
    assert (result.num_test, result.num_forget, result.num_retain) == (3, 2, 1)


def test_attack_success_by_hand() -> None:
    """One test image is not of the target class 1: (−1, 0), with logit −ln 3 + t once stamped.

    t = 10 sends it to the target, t = 0 does not; with the target's own images a clean model would have 50 %.
    """
    backdoored, clean = measured(weights(SURE, 10.0)), measured(weights(SURE, 0.0))
    assert (backdoored.attack_success_rate, backdoored.num_triggered) == (100.0, 1)
    assert (clean.attack_success_rate, clean.num_triggered) == (0.0, 1)


def test_membership_by_hand() -> None:
    """The attacker gets the margins of the true labels: ln 3 where the prediction is right, else −ln 3."""
    retained = torch.tensor([SURE, SURE, SURE, -SURE, -SURE])
    unseen, forgotten = torch.tensor([SURE, SURE, SURE, -SURE]), torch.tensor([-SURE])
    expected = membership_attack(retained, unseen, forgotten, numpy_generator(7, "audit", "membership"))
    result = measured(weights(SURE), run=trained_run(seed=7))
    assert result.membership == expected
    assert result.mia_efficacy == expected.efficacy


def test_output_distance_by_hand() -> None:
    """Against w = 0 every example has ½·ln(4/3) (see test_evidence)."""
    distance = measured(weights(SURE), reference=weights(0.0)).output_distance
    each = pytest.approx(0.5 * math.log(4 / 3))
    assert (distance.forget, distance.retain, distance.test) == (each, each, each)


def test_a_class_request_takes_the_class_out_of_the_test_data() -> None:
    """Without class 0 D_t is (1, 1), (1, 1), (−1, 1), 2 of 3 right, and the attacker's non-members are these.

    D_f are the three examples of class 0, of which only client 0's is right: UA = 2/3; D_r are the other
    three, of which 2 are right. With class 0 among the non-members the attacker would find the class.
    """
    result = measured(weights(SURE), ForgetRequest(classes=(0,)), trained_run(seed=1))
    assert (result.test_accuracy, result.num_test) == (pytest.approx(200 / 3), 3)
    assert result.unlearning_accuracy == pytest.approx(200 / 3)
    assert result.retain_accuracy == pytest.approx(200 / 3)
    assert result.membership is not None
    assert result.membership.num_available == 3
    assert result.num_triggered == 1


# against a slow reference


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), w=st.floats(-5, 5), t=st.floats(-5, 5))
def test_the_federation_measures_what_one_data_holder_would(seed: int, w: float, t: float) -> None:
    """Pool all data in one place and evaluate the model on it."""
    data = {name: random_images(seed, name, n) for name, n in (("0", 5), ("1", 8), ("2", 11), ("test", 9))}
    clients = {i: data[i] for i in ("2", "0", "1")}
    run = trained_run(data["test"])
    flat = weights(w, t)
    result = measured(flat, run=run, cohort=CohortStandIn(clients))
    model = run.model(flat)
    retained = concatenated([data["0"], data["2"]])
    assert result.retain_accuracy == pytest.approx(evaluate(model, retained).accuracy)
    assert result.unlearning_accuracy == pytest.approx(100 - evaluate(model, data["1"]).accuracy)
    assert result.test_accuracy == pytest.approx(evaluate(model, data["test"]).accuracy)
    assert result.worst_client_accuracy == min(evaluate(model, data[i]).accuracy for i in ("0", "2"))


# properties


def test_a_model_is_at_no_distance_from_itself() -> None:
    distance = measured(weights(1.3), reference=weights(1.3)).output_distance
    assert (distance.forget, distance.retain, distance.test) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("order", [("1", "0", "10"), ("10", "1", "0")])
def test_the_order_of_the_clients_is_irrelevant(order: tuple[str, ...]) -> None:
    again = measured(weights(0.4), cohort=CohortStandIn({i: DATA[i] for i in order}))
    assert replace(again, seconds=0.0) == replace(measured(weights(0.4)), seconds=0.0)


def test_only_the_seed_changes_the_attack() -> None:
    run, stand_in = trained_run(random_images(0, "test", 200)), CohortStandIn(crowd())
    first, again = (measured(weights(2.0), run=run, cohort=stand_in).membership for _ in range(2))
    other = measured(weights(2.0), run=trained_run(run.test, seed=1), cohort=stand_in).membership
    assert first == again
    assert first != other


def test_the_settings_reach_the_attacker() -> None:
    run, stand_in = trained_run(random_images(0, "test", 200)), CohortStandIn(crowd())
    arguments = run, weights(2.0), FORGET_1, stand_in.cohort
    often, capped = (
        measure(*arguments, AuditSettings(mia_draws=draws, mia_examples=cap)).membership
        for draws, cap in ((25, 2500), (10, 20))
    )
    assert often is not None
    assert often.num_draws == 25
    assert capped is not None
    assert (capped.num_per_side, capped.num_available) == (20, 200)


def test_json_keeps_every_figure() -> None:
    document = json.loads(json.dumps(measured(weights(SURE), reference=weights(0.0)).to_json()))
    assert document["test_accuracy"] == 75.0
    assert document["output_distance_test"] == pytest.approx(0.5 * math.log(4 / 3))
    assert document["client_accuracy"]["0"] == 100.0
    assert document["mia_meaningful"] is False
    assert None not in document.values()


# what is not there is None


def test_without_test_data() -> None:
    for test in (None, TEST.subset([])):
        result = measured(weights(SURE), run=trained_run(test))
        assert result.test_accuracy is result.membership is result.attack_success_rate is None
        assert result.mia_efficacy is None
        assert result.retain_accuracy == 60.0


def test_without_an_attack() -> None:
    result = measured(weights(SURE), run=trained_run(trigger=None))
    assert (result.attack_success_rate, result.num_triggered) == (None, 0)


def test_without_any_image_off_the_target_class() -> None:
    result = measured(weights(SURE), run=trained_run(images((1, 1), (1, 1))))
    assert (result.attack_success_rate, result.num_triggered) == (None, 0)


def test_without_the_forgotten_client() -> None:
    result = measured(weights(SURE), cohort=CohortStandIn(silent={"1": "no answer in 5 s"}))
    assert result.unlearning_accuracy is None
    assert result.mia_efficacy is None
    assert result.membership is not None
    assert result.output_distance.forget is None
    assert dict(result.missing) == {"1": "no answer in 5 s"}


def test_without_anyone() -> None:
    result = measured(weights(SURE), cohort=CohortStandIn(silent=dict.fromkeys(DATA, "gone")))
    assert result.retain_accuracy is result.membership is result.worst_client_accuracy is None
    assert result.mean_client_accuracy is None
    assert result.test_accuracy == 75.0


# errors


def test_a_model_that_diverged() -> None:
    with pytest.raises(LetheError, match="the model 'model' has parameters that are not finite"):
        measured(weights(math.nan))


# damage is noticed


def test_a_model_with_the_opposite_sign_would_be_noticed() -> None:
    """w = −ln 3 is wrong where w = ln 3 is right: every accuracy by hand becomes its complement."""
    result = measured(weights(-SURE))
    assert (result.test_accuracy, result.unlearning_accuracy, result.retain_accuracy) == (25.0, 0.0, 40.0)


def random_images(seed: int, name: str, n: int) -> Examples:
    generator = torch_generator(seed, name)
    x = torch.randn(n, 1, 1, 2, generator=generator)
    return TensorExamples(x, torch.randint(2, (n,), generator=generator))


def crowd() -> dict[str, Examples]:
    return {i: random_images(0, i, 100) for i in ("0", "1", "2")}

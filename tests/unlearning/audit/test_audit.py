"""unlearning/audit/audit.py: models against the retrained one, by hand and on a network that overfits."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.core.examples import Examples, TensorExamples, concatenated
from strategies.core.seeds import torch_generator
from tests.unlearning.audit_world import SURE, CohortStandIn, trained_run, weights
from unlearning.audit.audit import AuditedModel, AuditReport, audit, last_layer
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import AuditSettings

FORGET_1, FORGET_10 = ForgetRequest(clients=("1",)), ForgetRequest(clients=("10",))
BEFORE, AFTER, RETRAIN = weights(SURE, 10.0), weights(SURE, 0.0), weights(-SURE, 0.0)


def audited(models: Mapping[str, Tensor], stand_in: CohortStandIn | None = None) -> AuditReport:
    seconds = {"before": 8.0, "after": 1.0, "retrain": 4.0}
    given = {name: AuditedModel(flat, seconds.get(name)) for name, flat in models.items()}
    return audit(trained_run(), FORGET_1, given, (stand_in or CohortStandIn()).cohort, AuditSettings())


def three_models() -> dict[str, Tensor]:
    return {"before": BEFORE, "after": AFTER, "retrain": RETRAIN}


# by hand


def test_gaps_by_hand() -> None:
    """w = ln 3 has UA 100, RA 60, TA 75 (see test_measurement) and w = −ln 3 the complements 0, 40, 25.

    The gaps are +100, +20, +50 points. Of the clients that remain, w = ln 3 serves one fully and one by 1/3,
    w = −ln 3 the one not at all and the other by 2/3: worst 1/3 against 0, mean 2/3 against 1/3.
    """
    after = audited(three_models()).comparisons["after"].gaps
    assert (after["unlearning_accuracy"], after["retain_accuracy"], after["test_accuracy"]) == (
        100.0,
        20.0,
        50.0,
    )
    assert after["attack_success_rate"] == -100.0
    assert after["worst_client_accuracy"] == pytest.approx(100 / 3)
    assert after["mean_client_accuracy"] == pytest.approx(100 / 3)


def test_disparity_by_hand() -> None:
    """(100 + |gap of MIA| + 20 + 50) / 4."""
    report = audited(three_models())
    after = report.comparisons["after"]
    membership = [report.measurements[name].mia_efficacy for name in ("after", "retrain")]
    assert membership[0] is not None
    assert membership[1] is not None
    assert after.disparity == pytest.approx((170 + abs(membership[0] - membership[1])) / 4)


def test_parameter_distance_by_hand() -> None:
    """θu − θr = (2·ln 3, 0), θo − θr = (2·ln 3, 10)."""
    comparisons = audited(three_models()).comparisons
    step = 2 * math.log(3)
    assert comparisons["after"].parameter_distance == pytest.approx(step / math.hypot(step, 10))
    assert comparisons["before"].parameter_distance == 1.0
    assert comparisons["after"].last_layer_angle == pytest.approx(180.0)


def test_run_time_by_hand() -> None:
    """1 s of forgetting against 4 s of retraining: ratio 1/4."""
    report = audited({**three_models(), "untimed": AFTER})
    assert report.seconds == {"before": 8.0, "after": 1.0, "retrain": 4.0, "untimed": None}
    assert [report.seconds_ratio(name) for name in report.seconds] == [2.0, 0.25, 1.0, None]


def test_what_was_forgotten_before_is_measured_on_its_own_by_hand() -> None:
    """Client 10 was forgotten, then client 1. w = ln 3 is wrong on client 1 and right on client 0's two.

    Of client 10 it has 1 of 3 right, UA = 200/3; w = −ln 3 has the other two right, UA = 100/3. In both D_r
    is client 0 alone: RA is 100, and 0 with w = −ln 3.
    """
    run = replace(trained_run(), forgotten=(FORGET_10,))
    models = {name: AuditedModel(flat) for name, flat in three_models().items()}
    report = audit(run, FORGET_1, models, CohortStandIn().cohort, AuditSettings())
    after = report.measurements["after"]
    assert (after.unlearning_accuracy, after.retain_accuracy) == (100.0, 100.0)
    (earlier,) = report.earlier
    assert earlier.request == FORGET_10
    assert earlier.measurements["after"].unlearning_accuracy == pytest.approx(200 / 3)
    assert earlier.measurements["after"].retain_accuracy == 100.0
    assert earlier.gaps["after"]["unlearning_accuracy"] == pytest.approx(100 / 3)
    assert earlier.gaps["after"]["retain_accuracy"] == 100.0
    assert set(earlier.gaps["retrain"].values()) == {0.0}
    assert report.to_json()["earlier"][0]["request"]["clients"] == ["10"]
    assert audited(three_models()).earlier == ()


def test_an_earlier_client_that_cannot_be_asked_is_noted() -> None:
    run = replace(trained_run(), forgotten=(FORGET_10,))
    models = {name: AuditedModel(flat) for name, flat in three_models().items()}
    silent = CohortStandIn(silent={"10": "gone"})
    report = audit(run, FORGET_1, models, silent.cohort, AuditSettings())
    expected = "after: no client answered for client-10, which was forgotten before"
    assert [note for note in report.notes if note.startswith("after")] == [expected]


# identities


def test_identical_models_have_no_gap() -> None:
    comparison = audited({"before": BEFORE, "after": RETRAIN, "retrain": RETRAIN}).comparisons["after"]
    assert set(comparison.gaps.values()) == {0.0}
    assert (comparison.disparity, comparison.parameter_distance, comparison.last_layer_angle) == (
        0.0,
        0.0,
        0.0,
    )


def test_the_reference_is_compared_with_itself() -> None:
    assert audited(three_models()).comparisons["retrain"].disparity == 0.0


def test_nothing_to_forget_has_no_parameter_distance() -> None:
    comparison = audited({"before": RETRAIN, "after": AFTER, "retrain": RETRAIN}).comparisons["after"]
    assert comparison.parameter_distance is None


def test_the_output_distance_is_taken_from_the_retrained_model() -> None:
    report = audited(three_models())
    assert report.measurements["after"].output_distance.test == pytest.approx(0.5 * math.log(3))
    assert report.measurements["retrain"].output_distance.test is None


def test_another_retraining_gives_the_scale() -> None:
    report = audited({**three_models(), "retrain-seed-1": weights(-SURE, 0.5)})
    expected = 0.5 / math.hypot(2 * math.log(3), 10)
    assert report.comparisons["retrain-seed-1"].parameter_distance == pytest.approx(expected)


def test_the_last_layer_is_the_last_module() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    layout = wire.Layout.of(net.state_dict())
    expected = torch.cat([net[1].weight.flatten(), net[1].bias])
    assert torch.equal(last_layer(layout.flatten(net.state_dict()), layout), expected)


# what is written


def test_the_report_as_json() -> None:
    report = audited(three_models())
    document = json.loads(json.dumps(report.to_json()))
    assert document["request"]["clients"] == ["1"]
    assert document["reference"] == "retrain"
    assert {name: m["test_accuracy"] for name, m in document["models"].items()} == {
        "before": 75.0,
        "after": 75.0,
        "retrain": 25.0,
    }
    assert document["models"]["after"]["seconds"] == 1.0
    assert document["comparisons"]["after"]["gaps"]["test_accuracy"] == 50.0
    assert document["comparisons"]["after"]["disparity"] == report.comparisons["after"].disparity
    assert document["comparisons"]["after"]["seconds_ratio"] == 0.25
    assert document["notes"] == list(report.notes)


def test_notes_are_taken_from_the_model_before_forgetting() -> None:
    took = audited(three_models()).notes
    did_not_take = audited({**three_models(), "before": AFTER}).notes
    assert not any("backdoor did not take" in note for note in took)
    assert any("backdoor did not take" in note for note in did_not_take)


def test_a_missing_client_is_named_for_every_model() -> None:
    report = audited(three_models(), CohortStandIn(silent={"1": "gone"}))
    assert report.comparisons["after"].disparity is None
    assert [note.split(":")[0] for note in report.notes if "client 1: gone" in note] == list(three_models())


# errors


@pytest.mark.parametrize("lost", ["before", "retrain"])
def test_a_model_that_is_needed(lost: str) -> None:
    models = three_models()
    del models[lost]
    with pytest.raises(BadInput, match=f"no model '{lost}' to audit; the models are "):
        audited(models)


def test_a_diverged_model_is_named() -> None:
    with pytest.raises(LetheError, match="the model 'after' has parameters that are not finite"):
        audited({**three_models(), "after": weights(math.inf)})


# on a network that knows its training data by heart


def test_an_audit_tells_a_hidden_client_from_a_forgotten_one() -> None:
    """A network fitted to random labels remembers a client until it is retrained without it.

    Before, the forgotten labels are known, and the attacker calls them members. Retrained, they are guessed,
    and called what unseen ones are called. So a model that is still the original has a large disparity.
    """
    data = {str(i): random_labels(str(i), 40) for i in range(3)}
    run = wide_run(random_labels("test", 80))
    before = fit(run, concatenated(data.values()))
    retrained = fit(run, concatenated([data["0"], data["2"]]))
    flats = {"before": before, "hidden": before, "forgotten": retrained, "retrain": retrained}
    models = {name: AuditedModel(flat) for name, flat in flats.items()}
    report = audit(run, FORGET_1, models, CohortStandIn(data, run.build_model).cohort, AuditSettings())
    measured = report.measurements
    assert measured["before"].unlearning_accuracy == 0.0
    assert measured["before"].membership is not None
    assert measured["before"].membership.meaningful
    assert measured["retrain"].unlearning_accuracy is not None
    assert 30.0 < measured["retrain"].unlearning_accuracy < 70.0
    assert report.comparisons["forgotten"].disparity == 0.0
    assert report.comparisons["hidden"].disparity is not None
    assert report.comparisons["hidden"].disparity > 20.0
    assert report.notes == ()


# damage is noticed


def test_a_comparison_with_the_wrong_model_would_be_noticed() -> None:
    """Exchange θo and θr: the gaps of the hand-worked case are gone."""
    swapped = audited({"before": RETRAIN, "after": AFTER, "retrain": BEFORE}).comparisons["after"]
    assert swapped.gaps["test_accuracy"] == 0.0
    assert swapped.gaps["attack_success_rate"] == -100.0


def random_labels(name: str, n: int) -> Examples:
    generator = torch_generator(0, name)
    return TensorExamples(
        torch.randn(n, 20, generator=generator), torch.randint(2, (n,), generator=generator)
    )


def wide_model() -> nn.Module:
    net = nn.Sequential(nn.Linear(20, 400), nn.Tanh(), nn.Linear(400, 2))
    generator = torch_generator(0, "wide")
    for parameter in net.parameters():
        nn.init.normal_(parameter, generator=generator)
    return net


def wide_run(test: Examples) -> TrainedRun:
    layout = wire.Layout.of(wide_model().state_dict())
    flat = layout.flatten(wide_model().state_dict())
    base = trained_run(test, trigger=None)
    return TrainedRun(base.plan, base.train, wide_model, layout, flat, flat, None, 2, test=test)


def fit(run: TrainedRun, examples: Examples) -> Tensor:
    """Solve for the last layer by least squares, so that every label has logits ±5."""
    net = wide_model()
    assert isinstance(net, nn.Sequential)
    targets = 10.0 * nn.functional.one_hot(examples.y, 2).double() - 5.0
    with torch.no_grad():
        hidden = net[:2](examples.x).double()
        state = net.state_dict()
        state["2.weight"].copy_((torch.linalg.pinv(hidden) @ targets).T)
        state["2.bias"].zero_()
    return run.layout.flatten(state)

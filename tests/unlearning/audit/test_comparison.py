"""Every figure of a model, its gap to retraining, and its spread over seeds."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from strategies.core.wire import Layout
from strategies.log.update_log import UpdateLog
from unlearning.audit.apart import Part
from unlearning.audit.audit import AuditReport, Comparison
from unlearning.audit.comparison import Cost, figures_of, log_bytes, summarised
from unlearning.audit.measurement import Measurement, OutputDistance
from unlearning.request import ForgetRequest
from unlearning.traits.base import Needs


def measured(accuracy: float, distance: float | None = None) -> Measurement:
    """Return a measurement in which TA is this, RA 1 more and UA what is missing of it."""
    return Measurement(
        test_accuracy=accuracy,
        retain_accuracy=accuracy + 1.0,
        unlearning_accuracy=100.0 - accuracy,
        membership=None,
        attack_success_rate=None,
        client_accuracy={"0": accuracy, "1": accuracy - 10.0},
        output_distance=OutputDistance(distance, distance, distance),
        num_forget=1,
        num_retain=1,
        num_test=1,
        num_triggered=0,
        missing={},
        seconds=0.0,
    )


def report() -> AuditReport:
    models = {"before": measured(97.0, 0.5), "retrain": measured(90.0), "quick": measured(88.0, 0.25)}
    comparisons = {
        "before": Comparison({}, 7.0, 1.0, 30.0),
        "retrain": Comparison({}, 0.0, 0.0, 0.0),
        "quick": Comparison({}, 2.0, 0.5, None),
    }
    seconds = {"before": 8.0, "retrain": 4.0, "quick": 0.5}
    return AuditReport(ForgetRequest(clients=("3",)), "retrain", models, comparisons, seconds, ())


COSTS = {
    "before": Cost(8.0, 100, 200, 10, 50),
    "retrain": Cost(4.0, 80, 160, 8, 0),
    "quick": Cost(0.5, 0, 0, 0, 20),
}
RELEARNED = {"before": 0, "retrain": 4, "quick": 1}


# by hand


def test_areas_of_an_attack_have_their_gap_to_retrained() -> None:
    found = figures_of(report(), COSTS, RELEARNED, {"before": 0.75, "retrain": 0.5, "quick": 0.625})
    assert (found["quick"]["rmia_area"], found["quick"]["rmia_area_gap"]) == (0.625, 0.125)
    assert found["retrain"]["rmia_area_gap"] == 0.0
    unknown = figures_of(report(), COSTS, RELEARNED)["quick"]
    assert (unknown["rmia_area"], unknown["rmia_area_gap"]) == (None, None)


def test_figures_by_hand() -> None:
    """Accuracy 88 against 90 retrained, in an eighth of the time, relearned in a quarter of the rounds."""
    quick = figures_of(report(), COSTS, RELEARNED)["quick"]
    assert (quick["test_accuracy"], quick["test_accuracy_gap"]) == (88.0, -2.0)
    assert (quick["unlearning_accuracy"], quick["unlearning_accuracy_gap"]) == (12.0, 2.0)
    assert (quick["worst_client_accuracy"], quick["worst_client_accuracy_gap"]) == (78.0, -2.0)
    assert (quick["seconds"], quick["seconds_ratio"], quick["seconds_gap"]) == (0.5, 0.125, -3.5)
    assert (quick["relearn_rounds"], quick["relearn_effort"]) == (1.0, 0.25)
    assert (quick["bytes_up"], quick["bytes_up_gap"], quick["log_bytes_gap"]) == (0, -80, 20)
    assert (quick["disparity"], quick["parameter_distance"], quick["last_layer_angle"]) == (2.0, 0.5, None)
    assert quick["output_distance_forget"] == 0.25


def test_spread_by_hand() -> None:
    """Mean of 1, 2 and 6 is 3; squares of 2, 1 and 3 over two: 7."""
    found = summarised([[{"x": 1.0}], [{"x": 2.0}], [{"x": 6.0}]])["x"]
    assert (found["mean"], found["std"]) == (3.0, pytest.approx(7**0.5))
    half = 4.303 * 7**0.5 / 3**0.5  # Student's t with 2 degrees of freedom
    assert (found["low"], found["high"]) == (
        pytest.approx(3 - half, rel=1e-3),
        pytest.approx(3 + half, rel=1e-3),
    )
    assert (found["values"], found["listed"]) == ([[1.0], [2.0], [6.0]], False)


def test_forgettings_of_one_trained_model_are_no_further_seeds() -> None:
    """Means of the seeds 2 and 6: deviation √8; within, variances of 2 and 8: √5; between √(8 − 5/2)."""
    samples = [[{"x": 1.0}, {"x": 3.0}], [{"x": 4.0}, {"x": 8.0}]]
    found = summarised(samples)["x"]
    assert (found["mean"], found["std"]) == (4.0, pytest.approx(8**0.5))
    assert (found["std_training"], found["std_forgetting"]) == (
        pytest.approx(5.5**0.5),
        pytest.approx(5**0.5),
    )
    assert found["high"] - found["mean"] == pytest.approx(12.706 * 8**0.5 / 2**0.5, rel=1e-3)
    alone = summarised(samples[:1])["x"]
    assert (alone["std"], alone["std_training"], alone["low"]) == (pytest.approx(2**0.5), None, None)


def test_a_figure_in_two_groups_is_listed_without_mean_or_deviation() -> None:
    """Only percentages: seconds of 1 and 100 have a mean."""
    samples = [[{"disparity": v, "seconds": v, "disparity_ratio": v}] for v in (87.0, 7.0, 85.0)]
    found = summarised(samples)
    nothing = dict.fromkeys(("mean", "std", "low", "high"))
    assert found["disparity"] == {**nothing, "values": [[87.0], [7.0], [85.0]], "listed": True}
    assert found["seconds"]["mean"] == found["disparity_ratio"]["mean"] == pytest.approx(179 / 3)


def test_the_disparity_stands_relative_to_doing_nothing() -> None:
    """2 against 7: a ratio of 2/7, and 5 less."""
    quick = figures_of(report(), COSTS, RELEARNED)["quick"]
    assert (quick["disparity_ratio"], quick["disparity_difference"]) == (pytest.approx(2 / 7), -5.0)
    assert (quick["disparity_without_mia_ratio"], quick["disparity_without_mia_difference"]) == (None, None)


def test_poisoned_and_clean_examples_stand_apart_with_their_gaps() -> None:
    """UA of the poisoned 90 against 80 retrained."""
    made = report()
    models = {
        name: replace(found, apart={"poisoned": Part(ua, None, 5.0, 4)})
        for (name, found), ua in zip(made.measurements.items(), (10.0, 80.0, 90.0), strict=True)
    }
    quick = figures_of(replace(made, measurements=models), COSTS, RELEARNED)["quick"]
    assert (quick["unlearning_accuracy_poisoned"], quick["unlearning_accuracy_poisoned_gap"]) == (90.0, 10.0)
    assert quick["attack_success_rate_poisoned"] == 5.0
    assert "unlearning_accuracy_clean" not in quick


# properties


def test_retraining_has_no_gap_to_itself() -> None:
    figures = figures_of(report(), COSTS, RELEARNED)["retrain"]
    gaps = [value for name, value in figures.items() if name.endswith("_gap") and value is not None]
    assert gaps
    assert not any(gaps)
    assert (figures["seconds_ratio"], figures["relearn_effort"], figures["disparity"]) == (1.0, 1.0, 0.0)


def test_what_was_not_measured_is_none() -> None:
    figures = figures_of(report(), {**COSTS, "quick": Cost(None)}, {})["quick"]
    for name in ("relearn_rounds", "relearn_effort", "attack_success_rate", "mia_efficacy", "seconds_ratio"):
        assert figures[name] is None
    assert figures["bytes_up_gap"] is None


def test_every_model_has_the_same_figures() -> None:
    found = figures_of(report(), COSTS, RELEARNED)
    assert len({tuple(figures) for figures in found.values()}) == 1


def test_a_seed_without_a_figure_is_left_out_of_its_mean() -> None:
    samples = [[{"x": None, "y": None}], [{"x": 2.0, "y": None}], [{"x": 4.0, "y": None}]]
    found = summarised(samples)
    assert (found["x"]["mean"], found["x"]["std"]) == (3.0, pytest.approx(2**0.5))
    assert (found["y"]["mean"], found["y"]["std"], found["y"]["values"]) == (None, None, [])
    assert summarised([]) == {}


def test_one_seed_has_no_spread() -> None:
    found = summarised([[{"x": 2.0}]])["x"]
    assert (found["mean"], found["std"], found["low"], found["high"]) == (2.0, None, None, None)


# the update log that is needed


def test_log_bytes_of_each_need(tmp_path: Path) -> None:
    """Two clients, 1,000 parameters: 8,000 bytes of sums beside the index, or 3 rounds of updates."""
    layout = Layout(("w",), ((1000,),))
    with UpdateLog.create(tmp_path / "log", layout) as log:
        for number in (1, 2, 3):
            log.begin_round(number)
            for client in ("a", "b"):
                log.add(number, client, 1.0, 1, torch.ones(1000), 1000**0.5)
            log.commit_round(number, averaging=True)
    read = UpdateLog.open(tmp_path / "log")
    needed = {need: log_bytes(read, Needs(log=need)) for need in ("none", "norms", "sum", "full")}  # type: ignore[arg-type]
    assert needed["none"] == 0
    assert needed["norms"] > 0
    assert needed["sum"] - needed["norms"] == 2 * 4 * 1000
    assert needed["full"] == read.stored_bytes() >= needed["norms"] + 3 * 2 * 4 * 1000
    assert log_bytes(None, Needs(log="full")) == 0

"""A server without test data learns test accuracy from what its clients hold out, at most what they have."""

from functools import partial
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord

from app.config.run_config import RunConfig
from app.workflows import audit, forget, train
from app.workflows.session import open_session
from benchmarks.inline import InlineGrid
from strategies.client.evaluation import outputs_of
from strategies.client.holdout import held_out
from strategies.core import wire
from strategies.task import CLASSIFICATION
from tests.unlearning.audit_world import LAYOUT, SURE, images, two_weight_model, weights
from unlearning.audit.held_out import Bound, HeldOutAnswer, Outputs, answer_held_out, decoded, encoded, pooled
from unlearning.forget_spec import ForgetSpec
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

TEN = Bound(10, with_reference=False)


def model(w: float) -> Outputs:
    built = two_weight_model()
    wire.load_flat(built, weights(w), LAYOUT)
    return partial(outputs_of, built)


def test_by_hand() -> None:
    """w = ln 3 calls x = 1 class 1 and x = −1 class 0: two of three right; without class 0, one of two."""
    held = images((1, 1), (-1, 0), (-1, 1))
    found = answer_held_out(model(SURE), None, held, ForgetSpec(indices=(0,)), CLASSIFICATION)
    assert found is not None
    assert found.correct.tolist() == [1, 1, 0]
    without = answer_held_out(model(SURE), None, held, ForgetSpec(classes=(0,)), CLASSIFICATION)
    assert without is not None
    assert without.correct.tolist() == [1, 0]
    assert answer_held_out(model(SURE), None, held, ForgetSpec(everything=True), CLASSIFICATION) is None
    assert answer_held_out(model(SURE), None, images(), ForgetSpec(), CLASSIFICATION) is None


@pytest.mark.parametrize("summed", [False, True])
def test_it_travels(summed: bool) -> None:
    found = answer_held_out(model(SURE), model(0.0), images((1, 1), (-1, 1)), ForgetSpec(), CLASSIFICATION)
    assert found is not None
    numbers, arrays = encoded(found, summed=summed)
    back = decoded(numbers, ArrayRecord(arrays), Bound(2, with_reference=True))
    assert back is not None
    assert (back.margin is None) == summed
    assert float(back.correct.sum()) == 1.0
    assert back.divergence == found.divergence


def test_the_mean_over_clients_is_that_of_all_their_examples() -> None:
    parts = [
        HeldOutAnswer(torch.zeros(1), torch.ones(1), 0.5),
        HeldOutAnswer(torch.zeros(3), torch.zeros(3), 1.5),
    ]
    both = pooled(parts)
    assert both.margin is not None
    assert float(both.correct.mean()) == 0.25
    assert both.divergence == 0.5
    assert pooled([parts[0], HeldOutAnswer(None, torch.ones(2))]).margin is None
    assert len(pooled([]).correct) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num-tested": 11}, "'num-tested' is 11, expected a whole number from 1 to 10"),
        ({"num-tested": 0}, "from 1 to 10"),
        ({"num-tested": 2.0}, "from 1 to 10"),
        ({"correct-tested": 2.5}, "'correct-tested' is 2.5, expected a number from 0 to 2"),
        ({"correct-tested": float("nan")}, "expected a number from 0 to 2"),
    ],
)
def test_sums_that_cannot_be_are_refused(change: dict[str, float], message: str) -> None:
    numbers = {"num-tested": 2, "correct-tested": 1.0, **change}
    with pytest.raises(ValueError, match=message):
        decoded(numbers, ArrayRecord(), TEN)


def test_vectors_that_cannot_be_are_refused() -> None:
    for margin, correct, message in (
        (
            torch.tensor([0.0, float("nan")]),
            torch.ones(2),
            "'margin-tested' holds values that are not finite",
        ),
        (torch.zeros(2), torch.tensor([0.0, 1.5]), "'score-tested' holds numbers that are not from 0 to 1"),
        (torch.zeros(3), torch.ones(3), r"expected float32 \(2,\)"),
    ):
        numbers, arrays = encoded(HeldOutAnswer(margin, correct), summed=False)
        with pytest.raises(ValueError, match=message):
            decoded({**numbers, "num-tested": 2}, ArrayRecord(arrays), TEN)
    with pytest.raises(ValueError, match="'divergence-tested' is None"):
        decoded({"num-tested": 2, "correct-tested": 1.0}, ArrayRecord(), Bound(10, with_reference=True))


@pytest.mark.parametrize("answers", ["examples", "aggregate"])
def test_an_audit_of_a_run_whose_server_has_no_test_data(answers: str, tmp_path: Path) -> None:
    """30 examples a client, of which it holds out about 6; the client that is forgotten says nothing."""
    keys = ["run.rounds=2", "data.clients=3", "data.train-limit=90", "data.test-share=0", "data.public=0"]
    keys += [
        "data.local-test-share=0.2",
        "model.name=mlp",
        f"run.home={tmp_path}",
        f"audit.answers={answers}",
    ]
    config = RunConfig().with_overrides([*keys, f"run.certificate-key={tmp_path / 'key.pem'}"])
    folder = train(config, None, InlineGrid(config))
    request = ForgetRequest(clients=("2",))
    grid = InlineGrid(open_session(folder).config)
    forget(folder, request, ForgetSettings(method="finetune"), None, grid)
    settings = AuditSettings(seeds=0, answers=answers)
    report = audit(folder, request, ["finetune"], settings, None, InlineGrid(open_session(folder).config))
    for name in ("before", "finetune", "retrain"):
        measured = report.measurements[name]
        assert measured.num_test == sum(int(held_out(0.2, i, 30).sum()) for i in "01")
        assert measured.test_accuracy is not None
        assert 0 < measured.test_accuracy <= 100
        assert (measured.membership is None) == (answers == "aggregate")
    assert report.measurements["finetune"].output_distance.test is not None

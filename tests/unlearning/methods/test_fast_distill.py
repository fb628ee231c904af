"""A cautious subtraction, and distillation mostly into the last layers."""

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.config.settings import ModelSettings
from app.models.built_in import build_model
from strategies.client.distillation import Lesson, distil, distillation_loss
from strategies.client.evaluation import outputs_of
from strategies.core.errors import BadInput
from strategies.core.examples import TensorExamples
from strategies.core.seeds import torch_generator
from tests.unlearning.runs import Rounds, logged_run
from unlearning.central.skew import subtract_with_skew
from unlearning.forgetting import forget
from unlearning.methods.fast_distill import cautious_alpha, features_of, head_of
from unlearning.methods.fast_fedul import round_shares
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings
from unlearning.traits.distill import DistillSettings
from unlearning.traits.fast_fedul import SkewSettings

REQUEST = ForgetRequest(clients=("b",))
FIRST = 6 * 2 + 6  # Parameters of the body
SIZE = FIRST + 3 * 6 + 3
OWN_ALPHA = 0.15
"""0.3 over the two rounds of the run."""


def chain() -> nn.Module:
    """Return a convolution over two values, whose six channels a linear layer turns into three logits."""
    layers = {"conv": nn.Conv1d(1, 6, 2), "relu": nn.ReLU(), "flatten": nn.Flatten(), "fc": nn.Linear(6, 3)}
    return nn.Sequential(OrderedDict(layers))


@pytest.fixture
def run(tmp_path: Path) -> TrainedRun:
    """Return a run of two rounds whose client b moved the model far."""
    generator = torch_generator(1, "updates")
    a, b, c, d = (torch.randn(SIZE, generator=generator) for _ in range(4))
    rounds: Rounds = [{"a": (1, a), "b": (1, 2 * b)}, {"a": (1, c), "b": (1, 2 * d)}]
    x = torch.randn(64, 1, 2, generator=torch_generator(0, "public"))
    public = TensorExamples(x, torch.arange(64) % 3)
    return logged_run(tmp_path / "log", rounds, initial=torch.zeros(SIZE), build_model=chain, public=public)


def started(run: TrainedRun, alpha: float) -> Tensor:
    assert run.log is not None
    return subtract_with_skew(run.final, round_shares(run.log, ("b",)), SkewSettings(alpha=alpha))


def test_the_body_is_distilled_in_one_pass_only(run: TrainedRun) -> None:
    """However many passes the head takes: the convolution is the same; the linear layer is not."""
    one, five = (
        forget(run, REQUEST, "fast-distill", ForgetSettings.of("fast-distill", epochs=epochs)).flat
        for epochs in (1, 5)
    )
    assert one[:FIRST].equal(five[:FIRST])
    assert not one[FIRST:].allclose(five[FIRST:])
    assert not one[:FIRST].equal(started(run, OWN_ALPHA)[:FIRST])


def test_the_student_moves_towards_the_teacher(run: TrainedRun) -> None:
    assert run.public is not None
    x = run.public
    teacher = outputs_of(run.model(run.final), x)

    def distance(flat: Tensor) -> float:
        return distillation_loss(outputs_of(run.model(flat), x), teacher, 1.0).item()

    settings = ForgetSettings.of("fast-distill", epochs=20, hard_label_weight=0.0)
    after = forget(run, REQUEST, "fast-distill", settings).flat
    assert distance(after) < 0.7 * distance(started(run, OWN_ALPHA))


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_no_epoch_is_fast_fedul(run: TrainedRun, alpha: float) -> None:
    """The neutral setting; at α = 0 that is subtraction."""
    settings = ForgetSettings.of("fast-distill", epochs=0, skew_alpha=alpha).with_own(
        "fast-fedul", alpha=alpha
    )
    flat = forget(run, REQUEST, "fast-distill", settings).flat
    assert flat.equal(forget(run, REQUEST, "fast-fedul", settings).flat)
    if alpha == 0:
        assert flat.allclose(forget(run, REQUEST, "subtract", settings).flat, atol=1e-6)


def test_each_method_has_its_own_alpha(run: TrainedRun) -> None:
    """Fast-FedUL keeps the paper's 0.07 where nothing is said."""
    assert forget(run, REQUEST, "fast-fedul", ForgetSettings()).flat.equal(started(run, 0.07))
    cautious = forget(run, REQUEST, "fast-distill", ForgetSettings.of("fast-distill", epochs=0)).flat
    assert cautious.equal(started(run, OWN_ALPHA))


def test_the_cautious_alpha_leaves_the_same_of_a_client_however_long_the_run() -> None:
    """(1 − 0.3/T)^T is 0.74 after many rounds; of two rounds, α is 0.15."""
    assert cautious_alpha(2) == OWN_ALPHA
    assert [(1 - cautious_alpha(t)) ** t for t in (15, 60)] == pytest.approx([0.74, 0.74], abs=0.005)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet18"])
def test_features_then_head_are_the_model(name: str) -> None:
    settings = ModelSettings.model_validate({"name": name, "width": 4, "hidden": 8})
    model = build_model(settings, (1, 8, 8), 5, seed=0)
    given = torch.rand(3, 1, 8, 8, generator=torch_generator(0, "x"))
    x = TensorExamples(given, torch.zeros(3, dtype=torch.int64))
    body, head = head_of(model)
    expected = outputs_of(model, x)
    assert torch.allclose(
        outputs_of(head, TensorExamples(features_of(body, model, x), x.y)), expected, atol=1e-5
    )
    own = {id(p) for p in model.parameters()}
    assert {id(p) for p in head.parameters()} <= own
    convolutions = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    assert not convolutions


def test_a_fading_step_ends_near_zero() -> None:
    """Two steps of sizes η and η/2 without momentum, on one example, worked out with autograd by hand."""
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0], [0.0]]))
    answers, data = (
        torch.tensor([[0.0, 1.0]]),
        TensorExamples(torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)),
    )
    settings = DistillSettings(epochs=2, learning_rate=0.5, hard_label_weight=0.0, temperature=1.0)
    expected = model.weight.detach().clone()
    for rate in (0.5, 0.25):
        gradient = expected.flatten().softmax(0) - answers[0].softmax(0)  # of KL with respect to the logits
        expected = expected - rate * gradient.unsqueeze(1)
    distil(model, Lesson(data, answers), settings, 0.0, torch_generator(0, "x"), fading=True)
    assert torch.allclose(model.weight, expected, atol=1e-6)


def test_a_client_that_never_took_part_changes_nothing(run: TrainedRun) -> None:
    other = replace(run, clients=("a", "b", "c"))
    result = forget(other, ForgetRequest(clients=("c",)), "fast-distill", ForgetSettings())
    assert result.flat.equal(run.final)
    assert "never took part" in result.notes[0]


def test_same_seed_repeats(run: TrainedRun) -> None:
    first, again = (forget(run, REQUEST, "fast-distill", ForgetSettings()).flat for _ in range(2))
    assert first.equal(again)
    other = replace(run, plan=replace(run.plan, seed=1))
    assert not forget(other, REQUEST, "fast-distill", ForgetSettings()).flat.equal(first)


def test_unlabelled_public_data_are_used_without_their_labels(run: TrainedRun) -> None:
    assert run.public is not None
    unlabelled = replace(run, public=TensorExamples(run.public.x, torch.full_like(run.public.y, -1)))
    result = forget(unlabelled, REQUEST, "fast-distill", ForgetSettings())
    assert "without the hard-label term" in result.notes[0]


def test_public_data_are_needed(run: TrainedRun) -> None:
    with pytest.raises(BadInput, match=r"fast-distill needs public data on the server: set data\.public"):
        forget(replace(run, public=None), REQUEST, "fast-distill", ForgetSettings())

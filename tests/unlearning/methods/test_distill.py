"""Distillation of the old model into the subtracted one."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from strategies.errors import BadInput, LetheError
from strategies.evaluation import predict_logits
from strategies.examples import Examples
from strategies.seeds import torch_generator
from tests.unlearning.runs import Rounds, linear_model, logged_run
from unlearning.forgetting import forget
from unlearning.methods.distill import DistillSettings, agreeing, distil, distillation_loss
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

REQUEST = ForgetRequest(clients=("b",))


def public(n: int = 64) -> Examples:
    """Return inputs in the plane, labelled by a rule."""
    x = torch.randn(n, 2, generator=torch_generator(0, "public"))
    return Examples(x, (x[:, 0] > 0).long())


@pytest.fixture
def run(tmp_path: Path) -> TrainedRun:
    """Return a run of a linear model whose client b moved it far."""
    generator = torch_generator(1, "updates")
    a, b = torch.randn(9, generator=generator), 3 * torch.randn(9, generator=generator)
    rounds: Rounds = [{"a": (1, a), "b": (1, b)}]
    return logged_run(
        tmp_path / "log", rounds, initial=torch.zeros(9), build_model=linear_model, public=public()
    )


def test_loss_worked_by_hand() -> None:
    """One example, two classes, T = 2; teacher logits (2 ln 3, 0), student (0, 0).

    Teacher at T: softmax(ln 3, 0) = (3/4, 1/4); student (1/2, 1/2).
    KL = 3/4·ln(3/2) + 1/4·ln(1/2); times T² = 4.
    """
    teacher, student = torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2)
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert distillation_loss(student, teacher, 2.0).item() == pytest.approx(expected, rel=1e-6)


def test_loss_against_a_slow_loop() -> None:
    """Mean over the batch of Σ_c p_c (ln p_c − ln q_c), in Python floats."""
    generator = torch_generator(0, "logits")
    student, teacher = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p = [math.exp(v / 3) / sum(math.exp(w / 3) for w in t) for v in t]
        q = [math.exp(v / 3) / sum(math.exp(w / 3) for w in s) for v in s]
        total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    assert distillation_loss(student, teacher, 3.0).item() == pytest.approx(9 * total / 5, rel=1e-5)


def test_the_direction_of_the_divergence_is_pinned() -> None:
    """KL(teacher ‖ student), not the other way round: the two differ here, so the swap would be noticed."""
    teacher, student = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    forward, backward = distillation_loss(student, teacher, 1.0), distillation_loss(teacher, student, 1.0)
    p, q = teacher.softmax(1), student.softmax(1)
    assert forward.item() == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-5)
    assert not math.isclose(forward.item(), backward.item(), rel_tol=0.05)


def test_gradient_size_does_not_depend_on_the_temperature() -> None:
    """For large T the gradient of T²·KL tends to (s − t)/classes (Hinton et al., equation 4)."""
    student = torch.tensor([[0.3, -0.3]], requires_grad=True)
    teacher = torch.tensor([[-0.2, 0.2]])
    distillation_loss(student, teacher, 100.0).backward()
    assert student.grad is not None
    assert student.grad.tolist()[0] == pytest.approx([0.25, -0.25], rel=1e-2)


def test_the_student_moves_towards_the_teacher(run: TrainedRun) -> None:
    """After distillation its answers on public data are closer to the old model's than before."""
    assert run.public is not None
    settings = ForgetSettings(epochs=10, learning_rate=0.05, hard_label_weight=0.0)
    before = forget(run, REQUEST, "subtract", settings).flat
    after = forget(run, REQUEST, "distill", settings).flat
    teacher = predict_logits(run.model(run.final), run.public.x)

    def distance(flat: Tensor) -> float:
        assert run.public is not None
        return distillation_loss(predict_logits(run.model(flat), run.public.x), teacher, 1.0).item()

    assert distance(after) < 0.5 * distance(before)


def test_no_epoch_is_subtraction(run: TrainedRun) -> None:
    """The neutral setting."""
    settings = ForgetSettings(epochs=0)
    assert forget(run, REQUEST, "distill", settings).flat.equal(
        forget(run, REQUEST, "subtract", settings).flat
    )


def test_teacher_as_student_stays_where_it_is(run: TrainedRun) -> None:
    """Equal models have no gradient, so nothing moves but rounding."""
    assert run.public is not None
    model = run.model(run.final)
    logits = predict_logits(model, run.public.x)
    settings = DistillSettings(epochs=2, hard_label_weight=0.0)
    distil(model, logits, run.public, settings, 0.9, torch_generator(0, "x"))
    assert run.layout.flatten(model.state_dict()).allclose(run.final, atol=1e-5)


def test_hard_labels_count_only_with_a_weight(run: TrainedRun) -> None:
    """With weight 0 other labels change nothing; with a weight they do."""
    assert run.public is not None
    flipped = replace(run, public=Examples(run.public.x, 1 - run.public.y))
    without, with_labels = (
        ForgetSettings(hard_label_weight=0.0, epochs=2),
        ForgetSettings(hard_label_weight=0.5, epochs=2),
    )

    def result(of: TrainedRun, settings: ForgetSettings) -> Tensor:
        return forget(of, REQUEST, "distill", settings).flat

    assert result(run, without).equal(result(flipped, without))
    assert not result(run, with_labels).equal(result(flipped, with_labels))


def test_unlabelled_public_data_are_used_without_their_labels(run: TrainedRun) -> None:
    """Labels of -1 say that there are none: the result is that of weight 0, and a note says so."""
    assert run.public is not None
    unlabelled = replace(run, public=Examples(run.public.x, torch.full_like(run.public.y, -1)))
    result = forget(unlabelled, REQUEST, "distill", ForgetSettings(epochs=2, hard_label_weight=0.5))
    without = forget(run, REQUEST, "distill", ForgetSettings(epochs=2, hard_label_weight=0.0))
    assert result.flat.equal(without.flat)
    assert "without the hard-label term" in result.notes[0]


def test_teacher_filter_drops_the_largest_disagreement() -> None:
    """Of four examples, the one with opposite answers goes."""
    teacher = torch.tensor([[2.0, 0.0], [0.0, 2.0], [5.0, 0.0], [1.0, 1.0]])
    student = torch.tensor([[2.0, 0.0], [0.0, 1.9], [0.0, 5.0], [1.0, 1.0]])
    assert agreeing(student, teacher, 0.25).tolist() == [0, 1, 3]
    assert agreeing(student, teacher, 0.0).tolist() == [0, 1, 2, 3]


def test_same_seed_repeats_and_the_global_one_has_no_effect(run: TrainedRun) -> None:
    """The batches come from the run's seed and the request."""
    settings = ForgetSettings(epochs=3)
    first = forget(run, REQUEST, "distill", settings).flat
    torch.rand(3)
    assert forget(run, REQUEST, "distill", settings).flat.equal(first)
    other = replace(run, plan=replace(run.plan, seed=1))
    assert not forget(other, REQUEST, "distill", settings).flat.equal(first)


def test_the_run_is_not_altered(run: TrainedRun) -> None:
    """Its parameters and public data are what they were."""
    assert run.public is not None
    final, x = run.final.clone(), run.public.x.clone()
    forget(run, REQUEST, "distill", ForgetSettings(epochs=1))
    assert run.final.equal(final)
    assert run.public.x.equal(x)


def test_a_client_that_never_took_part_changes_nothing(run: TrainedRun) -> None:
    """No distillation either: the model comes back as it was."""
    other = replace(run, clients=("a", "b", "c"))
    result = forget(other, ForgetRequest(clients=("c",)), "distill", ForgetSettings())
    assert result.flat.equal(run.final)
    assert "never took part" in result.notes[0]


def test_public_data_are_needed(run: TrainedRun) -> None:
    """Without them the request is refused before any work."""
    with pytest.raises(BadInput, match=r"distill needs public data on the server: set data\.public"):
        forget(replace(run, public=None), REQUEST, "distill", ForgetSettings())


def test_a_diverging_student_is_an_error(run: TrainedRun) -> None:
    """Parameters that are not finite never become a result."""
    settings = ForgetSettings(learning_rate=3e38, epochs=5)
    with pytest.raises(LetheError, match=r"not finite; lower forget\.learning-rate"):
        forget(run, REQUEST, "distill", settings)


def test_models_keep_their_own_device_and_mode(run: TrainedRun) -> None:
    """The builder's module is a plain module; nothing of it is shared between teacher and student."""
    teacher, student = run.model(run.final), run.model(run.initial)
    assert isinstance(teacher, nn.Module)
    assert teacher is not student

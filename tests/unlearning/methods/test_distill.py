"""Distillation of the old model into the subtracted one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from strategies.client.distillation import Lesson, distil, distillation_loss
from strategies.client.evaluation import outputs_of
from strategies.core.errors import BadInput, LetheError
from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator
from tests.unlearning.runs import Rounds, linear_model, logged_run
from unlearning.forgetting import forget
from unlearning.methods.distill import nearest_to_teacher
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings
from unlearning.traits.distill import DistillSettings

REQUEST = ForgetRequest(clients=("b",))


def public(n: int = 64) -> Examples:
    """Return inputs in the plane, labelled by a rule."""
    x = torch.randn(n, 2, generator=torch_generator(0, "public"))
    return TensorExamples(x, (x[:, 0] > 0).long())


@pytest.fixture
def run(tmp_path: Path) -> TrainedRun:
    """Return a run of a linear model whose client b moved it far."""
    generator = torch_generator(1, "updates")
    a, b = torch.randn(9, generator=generator), 3 * torch.randn(9, generator=generator)
    rounds: Rounds = [{"a": (1, a), "b": (1, b)}]
    return logged_run(
        tmp_path / "log", rounds, initial=torch.zeros(9), build_model=linear_model, public=public()
    )


def test_the_student_moves_towards_the_teacher(run: TrainedRun) -> None:
    """After distillation its answers on public data are closer to the old model's than before."""
    assert run.public is not None
    settings = ForgetSettings.of("distill", epochs=10, learning_rate=0.05, hard_label_weight=0.0)
    before = forget(run, REQUEST, "subtract", settings).flat
    after = forget(run, REQUEST, "distill", settings).flat
    teacher = outputs_of(run.model(run.final), run.public)

    def distance(flat: Tensor) -> float:
        assert run.public is not None
        return distillation_loss(outputs_of(run.model(flat), run.public), teacher, 1.0).item()

    assert distance(after) < 0.5 * distance(before)


def test_no_epoch_is_subtraction(run: TrainedRun) -> None:
    """The neutral setting."""
    settings = ForgetSettings.of("distill", epochs=0)
    assert forget(run, REQUEST, "distill", settings).flat.equal(
        forget(run, REQUEST, "subtract", settings).flat
    )


def test_teacher_as_student_stays_where_it_is(run: TrainedRun) -> None:
    """Equal models have no gradient, so nothing moves but rounding."""
    assert run.public is not None
    model = run.model(run.final)
    logits = outputs_of(model, run.public)
    settings = DistillSettings(epochs=2, hard_label_weight=0.0)
    distil(model, Lesson(run.public, logits), settings, 0.9, torch_generator(0, "x"))
    assert run.layout.flatten(model.state_dict()).allclose(run.final, atol=1e-5)


def test_hard_labels_count_only_with_a_weight(run: TrainedRun) -> None:
    """With weight 0 other labels change nothing; with a weight they do."""
    assert run.public is not None
    flipped = replace(run, public=TensorExamples(run.public.x, 1 - run.public.y))
    without, with_labels = (
        ForgetSettings.of("distill", hard_label_weight=0.0, epochs=2),
        ForgetSettings.of("distill", hard_label_weight=0.5, epochs=2),
    )

    def result(of: TrainedRun, settings: ForgetSettings) -> Tensor:
        return forget(of, REQUEST, "distill", settings).flat

    assert result(run, without).equal(result(flipped, without))
    assert not result(run, with_labels).equal(result(flipped, with_labels))


def test_unlabelled_public_data_are_used_without_their_labels(run: TrainedRun) -> None:
    """Labels of -1 say that there are none: the result is that of weight 0, and a note says so."""
    assert run.public is not None
    unlabelled = replace(run, public=TensorExamples(run.public.x, torch.full_like(run.public.y, -1)))
    result = forget(
        unlabelled, REQUEST, "distill", ForgetSettings.of("distill", epochs=2, hard_label_weight=0.5)
    )
    without = forget(run, REQUEST, "distill", ForgetSettings.of("distill", epochs=2, hard_label_weight=0.0))
    assert result.flat.equal(without.flat)
    assert "without the hard-label term" in result.notes[0]


def test_teacher_filter_drops_the_largest_disagreement() -> None:
    """Of four examples, the one with opposite answers goes."""
    teacher = torch.tensor([[2.0, 0.0], [0.0, 2.0], [5.0, 0.0], [1.0, 1.0]])
    student = torch.tensor([[2.0, 0.0], [0.0, 1.9], [0.0, 5.0], [1.0, 1.0]])
    assert nearest_to_teacher(student, teacher, 0.25).tolist() == [0, 1, 3]
    assert nearest_to_teacher(student, teacher, 0.0).tolist() == [0, 1, 2, 3]


def test_same_seed_repeats_and_the_global_one_has_no_effect(run: TrainedRun) -> None:
    """The batches come from the run's seed and the request."""
    settings = ForgetSettings.of("distill", epochs=3)
    first = forget(run, REQUEST, "distill", settings).flat
    torch.rand(3)
    assert forget(run, REQUEST, "distill", settings).flat.equal(first)
    other = replace(run, plan=replace(run.plan, seed=1))
    assert not forget(other, REQUEST, "distill", settings).flat.equal(first)


def test_the_run_is_not_altered(run: TrainedRun) -> None:
    """Its parameters and public data are what they were."""
    assert run.public is not None
    final, x = run.final.clone(), run.public.x.clone()
    forget(run, REQUEST, "distill", ForgetSettings.of("distill", epochs=1))
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
    settings = ForgetSettings.of("distill", learning_rate=3e38, epochs=5)
    with pytest.raises(LetheError, match=r"not finite; lower forget\.distill\.learning-rate"):
        forget(run, REQUEST, "distill", settings)


def test_models_keep_their_own_device_and_mode(run: TrainedRun) -> None:
    """The builder's module is a plain module; nothing of it is shared between teacher and student."""
    teacher, student = run.model(run.final), run.model(run.initial)
    assert isinstance(teacher, nn.Module)
    assert teacher is not student

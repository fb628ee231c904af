"""unlearning/central/bad_teacher.py: the old model teaches D_r, a random one D_f."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from strategies.core.examples import Examples, TensorExamples
from strategies.tasks.regression import Regression
from tests.unlearning.plain import both, descend, epoch_of_batches, fresh, kl
from unlearning.central.bad_teacher import BadTeacherSettings, bad_teacher
from unlearning.central.masks import flat_mask
from unlearning.central.parameters import flat_parameters

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]


def test_it_is_the_papers_loss(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    """(1 − l) KL(T_s ‖ S) + l KL(T_d ‖ S), in batches of both sets, two passes."""
    model, bad = build_net(4, 8, 3), build_net(4, 8, 3, seed=5)
    retain, forget = make_blobs(30), make_blobs(12, seed=1)
    x, _, gone = both(retain, forget)

    def loss(student: nn.Module, batch: Tensor) -> Tensor:
        out, forgotten = student(x[batch]), gone[batch].double()
        of_good, of_bad = kl(model(x[batch]), out), kl(bad(x[batch]), out)
        return ((1 - forgotten) * of_good + forgotten * of_bad).mean()

    generator = fresh()
    batches = [batch for _ in range(2) for batch in epoch_of_batches(42, 8, generator)]
    settings = BadTeacherSettings(epochs=2, learning_rate=0.1, batch_size=8)
    found = bad_teacher(model, (model, bad), (retain, forget), settings, fresh())
    slow = descend(deepcopy(model), batches, loss, rate=0.1, momentum=0.9)
    torch.testing.assert_close(flat_parameters(found), flat_parameters(slow), rtol=1e-5, atol=1e-6)


def test_answers_come_nearer_to_each_teacher_on_its_data(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, bad = build_net(4, 16, 3), build_net(4, 16, 3, seed=5)
    retain, forget = make_blobs(30), make_blobs(12, seed=1)
    x, _, gone = both(retain, forget)
    settings = BadTeacherSettings(epochs=20, learning_rate=0.1)
    found = bad_teacher(model, (model, bad), (retain, forget), settings, fresh())

    def apart(teacher: nn.Module, student: nn.Module, where: Tensor) -> float:
        return float(kl(teacher(x[where]), student(x[where]).detach()).mean())

    assert apart(bad, found, gone) < apart(bad, model, gone) / 2
    assert apart(model, found, ~gone) < apart(model, bad, ~gone) / 2


def test_without_a_forgotten_example_the_model_stays(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, bad, retain = build_net(4, 8, 3), build_net(4, 8, 3, seed=5), make_blobs(30)
    found = bad_teacher(model, (model, bad), (retain, retain.subset([])), BadTeacherSettings(), fresh())
    torch.testing.assert_close(flat_parameters(found), flat_parameters(model), rtol=0, atol=1e-5)


def test_numbers_are_taught_as_well(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    """A regression has no labels; the distance is the squared difference."""
    model, bad, data = build_net(4, 8, 1), build_net(4, 8, 1, seed=5), make_blobs(40)
    x = data.batch(torch.arange(40))[0]
    assert isinstance(x, Tensor)
    numbers = TensorExamples(x, x[:, :1])
    parts = numbers.subset(range(30)), numbers.subset(range(30, 40))
    settings = BadTeacherSettings(epochs=30, learning_rate=0.05)
    found = bad_teacher(model, (model, bad), parts, settings, fresh(), task=Regression(1.0))
    now, before = ((bad(x[30:]) - each(x[30:]).detach()).square().mean() for each in (found, model))
    assert now < before


def test_pruned_weights_stay_zero(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, masks = build_net(4, 3), {"0.weight": torch.arange(12).view(3, 4) % 2 == 0}
    teachers, parts = (model, build_net(4, 3, seed=5)), (make_blobs(30), make_blobs(6))
    found = bad_teacher(model, teachers, parts, BadTeacherSettings(), fresh(), masks=masks)
    assert not flat_parameters(found)[~flat_mask(model, masks)].any()

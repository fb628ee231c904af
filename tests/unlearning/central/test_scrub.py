"""unlearning/central/scrub.py: max- and min-epochs, as the paper's algorithm 1 has them."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Generator, Tensor, nn

from strategies.core.examples import Examples
from strategies.task import CLASSIFICATION
from strategies.tasks.multi_label import MultiLabel
from tests.unlearning.plain import both, cross_entropies, descend, epoch_of_batches, fresh, kl
from unlearning.central.finetune import FinetuneSettings, finetune
from unlearning.central.masks import flat_mask
from unlearning.central.parameters import flat_parameters
from unlearning.central.scrub import ScrubSettings, max_epoch, min_epoch, scrub

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]


def algorithm_1(
    teacher: nn.Module, retain: Examples, forget: Examples, settings: ScrubSettings, generator: Generator
) -> nn.Module:
    """Return the model after SCRUB, written out."""
    x, y, gone = both(retain, forget)
    x_r, y_r, x_f = x[~gone], y[~gone], x[gone]

    def away(model: nn.Module, batch: Tensor) -> Tensor:
        return -kl(teacher(x_f[batch]), model(x_f[batch])).mean()

    def back(model: nn.Module, batch: Tensor) -> Tensor:
        out = model(x_r[batch])
        towards = kl(teacher(x_r[batch]), out)
        labels = cross_entropies(out, y_r[batch])
        return (settings.teacher_weight * towards + settings.label_weight * labels).mean()

    student = deepcopy(teacher)
    for epoch in range(settings.epochs):
        for count, loss in ((len(x_f), away), (len(x_r), back)):
            if loss is back or epoch < settings.max_epochs:
                batches = epoch_of_batches(count, settings.batch_size, generator)
                descend(student, batches, loss, rate=settings.learning_rate, momentum=settings.momentum)
    return student


@pytest.mark.parametrize(("epochs", "max_epochs"), [(3, 2), (2, 5), (2, 0)])
def test_it_is_the_papers_algorithm(
    build_net: BuildNet, make_blobs: MakeBlobs, epochs: int, max_epochs: int
) -> None:
    model, retain, forget = build_net(4, 8, 3), make_blobs(30), make_blobs(12, seed=1)
    settings = ScrubSettings(
        epochs=epochs, max_epochs=max_epochs, learning_rate=0.1, batch_size=8, teacher_weight=0.3
    )
    found = scrub(model, retain, forget, settings, fresh())
    slow = algorithm_1(model, retain, forget, settings, fresh())
    torch.testing.assert_close(flat_parameters(found), flat_parameters(slow), rtol=1e-5, atol=1e-6)


def test_without_teacher_and_ascent_it_is_fine_tuning(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, retain, forget = build_net(4, 8, 3), make_blobs(30), make_blobs(12, seed=1)
    found = scrub(model, retain, forget, ScrubSettings(epochs=1, max_epochs=0, teacher_weight=0), fresh())
    tuned = finetune(model, retain, FinetuneSettings(epochs=1), fresh())
    torch.testing.assert_close(flat_parameters(found), flat_parameters(tuned))


def test_the_answers_on_the_forgotten_move_away(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    """The sign of a max-epoch: the distance to the old model's answers grows with their number."""
    model, retain, forget = build_net(4, 8, 3), make_blobs(30), make_blobs(12, seed=1)
    x, _, gone = both(retain, forget)
    distances = []
    for max_epochs in (1, 2, 3):
        settings = ScrubSettings(epochs=3, max_epochs=max_epochs, learning_rate=0.05)
        found = scrub(model, retain, forget, settings, fresh())
        distances.append(float(kl(model(x[gone]), found(x[gone]).detach()).mean()))
    assert distances[0] < distances[1] < distances[2]


def test_the_first_max_epoch_sees_no_way_from_the_old_model(
    build_net: BuildNet, make_blobs: MakeBlobs
) -> None:
    """At w = w_o the distance is 0, its least: the gradient is rounding. From elsewhere it is not."""
    model, retain, forget = build_net(4, 8, 3), make_blobs(30), make_blobs(12, seed=1)
    settings = ScrubSettings(epochs=1, learning_rate=0.05)
    there = min_epoch(model, retain, model, settings, fresh())
    moved = [
        float(
            (
                flat_parameters(max_epoch(start, forget, model, settings, fresh())) - flat_parameters(start)
            ).norm()
        )
        for start in (model, there)
    ]
    assert moved[0] < 1e-6
    assert moved[1] > 1e-3


def test_a_task_without_labels_has_its_own_distance(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, data = build_net(4, 8, 3), make_blobs(30)
    several = type(data)(data.batch(torch.arange(30))[0], torch.eye(3)[data.targets()].bool())
    found = scrub(
        model,
        several.subset(range(20)),
        several.subset(range(20, 30)),
        ScrubSettings(),
        fresh(),
        task=MultiLabel(),
    )
    plain = scrub(
        model,
        data.subset(range(20)),
        data.subset(range(20, 30)),
        ScrubSettings(),
        fresh(),
        task=CLASSIFICATION,
    )
    assert flat_parameters(found).isfinite().all()
    assert not flat_parameters(found).equal(flat_parameters(plain))


def test_pruned_weights_stay_zero(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, masks = build_net(4, 3), {"0.weight": torch.arange(12).view(3, 4) % 2 == 0}
    found = scrub(model, make_blobs(30), make_blobs(6), ScrubSettings(), fresh(), masks=masks)
    assert not flat_parameters(found)[~flat_mask(model, masks)].any()

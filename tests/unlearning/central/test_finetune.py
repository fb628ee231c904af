"""unlearning/central/finetune.py: plain training on the retained data."""

from collections.abc import Callable

import torch
from torch import nn

from strategies.client.evaluation import evaluate
from strategies.core.examples import Examples
from strategies.core.seeds import torch_generator
from unlearning.central.finetune import FinetuneSettings, finetune
from unlearning.central.masks import flat_mask
from unlearning.central.parameters import flat_parameters
from unlearning.central.training import SgdSettings, trained

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]
Run = Callable[[torch.Generator], nn.Module]


def test_the_defaults_are_those_of_the_paper() -> None:
    settings = FinetuneSettings()
    assert (settings.epochs, settings.learning_rate) == (10, 0.01)


def test_it_is_training_on_the_retained_data(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, retain = build_net(4, 3), make_blobs(30)
    tuned = finetune(model, retain, FinetuneSettings(epochs=2), torch_generator(0))
    plain = trained(model, retain, SgdSettings(epochs=2), torch_generator(0))
    assert torch.equal(flat_parameters(tuned), flat_parameters(plain))


def test_no_epochs_leave_the_model_as_it_is(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model = build_net(4, 3)
    tuned = finetune(model, make_blobs(9), FinetuneSettings(epochs=0), torch_generator(0))
    assert torch.equal(flat_parameters(tuned), flat_parameters(model))


def test_the_loss_on_the_retained_data_falls(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, retain = build_net(4, 8, 3), make_blobs(60)
    tuned = finetune(model, retain, FinetuneSettings(), torch_generator(0))
    assert evaluate(tuned, retain).loss < evaluate(model, retain).loss


def test_pruned_weights_stay_zero(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, masks = build_net(4, 3), {"0.weight": torch.arange(12).view(3, 4) % 2 == 0}
    tuned = finetune(model, make_blobs(30), FinetuneSettings(), torch_generator(0), masks=masks)
    assert torch.equal(flat_parameters(tuned) != 0, flat_mask(model, masks))


def test_batches_come_from_the_generator(
    build_net: BuildNet, make_blobs: MakeBlobs, assert_seeded: Callable[[Run], None]
) -> None:
    model, retain = build_net(4, 3), make_blobs(60)
    assert_seeded(lambda generator: finetune(model, retain, FinetuneSettings(), generator))

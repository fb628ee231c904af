"""unlearning/central/training.py: local training on a copy."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from strategies.client.settings import TrainSettings
from strategies.client.training import Tensors, local_train
from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator
from unlearning.central.masks import flat_mask
from unlearning.central.parameters import copied, flat_parameters
from unlearning.central.training import SgdSettings, trained

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]
Run = Callable[[torch.Generator], nn.Module]


# by hand


def test_one_step_by_hand() -> None:
    """Two classes, zero weights, x = 2, y = 0: probabilities ½, so ∂ℓ/∂w = (−½·2, ½·2) and η = 0.1.

    w moves from (0, 0) to (0.1, −0.1).
    """
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.zero_()
    example = TensorExamples(torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([0]))
    settings = SgdSettings(epochs=1, learning_rate=0.1, momentum=0.0)
    assert flat_parameters(trained(model, example, settings, torch_generator(0))).tolist() == pytest.approx(
        [0.1, -0.1]
    )


def test_steps_per_epoch_counts_the_last_small_batch() -> None:
    assert SgdSettings(batch_size=32).steps_per_epoch(65) == 3


# neutral values


def test_it_is_local_training_on_a_copy(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, examples = build_net(4, 6, 3), make_blobs(50)
    settings = SgdSettings(epochs=3, learning_rate=0.05, momentum=0.5, weight_decay=0.01, batch_size=16)
    twin = copied(model)
    plain = TrainSettings(learning_rate=0.05, momentum=0.5, weight_decay=0.01, batch_size=16, local_epochs=3)
    local_train(twin, examples, plain, torch_generator(0))
    result = trained(model, examples, settings, torch_generator(0))
    assert torch.equal(flat_parameters(result), flat_parameters(twin))


def test_no_epochs_leave_the_model_as_it_is(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model = build_net(4, 3)
    result = trained(model, make_blobs(9), SgdSettings(epochs=0), torch_generator(0))
    assert torch.equal(flat_parameters(result), flat_parameters(model))


def test_full_masks_change_nothing(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, full = build_net(4, 3), {"0.weight": torch.ones(3, 4, dtype=torch.bool)}
    results = [
        trained(model, make_blobs(30), SgdSettings(), torch_generator(0), masks=m) for m in (None, full)
    ]
    assert torch.equal(*map(flat_parameters, results))


# properties


def test_the_model_is_not_altered(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model = build_net(4, 3).eval()
    before = flat_parameters(model)
    result = trained(model, make_blobs(30), SgdSettings(), torch_generator(0))
    assert torch.equal(flat_parameters(model), before)
    assert not torch.equal(flat_parameters(result), before)
    assert not result.training
    assert all(p.grad is None for p in result.parameters())


def test_pruned_weights_are_zero_afterwards(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, masks = build_net(4, 3), {"0.weight": torch.arange(12).view(3, 4) % 3 == 0}
    result = flat_parameters(trained(model, make_blobs(30), SgdSettings(), torch_generator(0), masks=masks))
    assert torch.equal(result != 0, flat_mask(model, masks))


def test_adjustments_are_made_in_order(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    calls: list[str] = []

    def noted(name: str, parameters: Tensors, gradients: Tensors) -> Tensors:
        calls.append(name)
        return gradients

    trained(
        build_net(4, 3),
        make_blobs(6),
        SgdSettings(epochs=2),
        torch_generator(0),
        adjustments=[partial(noted, "first"), partial(noted, "second")],
    )
    assert calls == ["first", "second"] * 2


def test_batches_come_from_the_generator(
    build_net: BuildNet, make_blobs: MakeBlobs, assert_seeded: Callable[[Run], None]
) -> None:
    model, examples = build_net(4, 3), make_blobs(50)
    assert_seeded(lambda generator: trained(model, examples, SgdSettings(batch_size=8), generator))


# errors


def test_training_on_nothing_is_refused(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    with pytest.raises(ValueError, match="needs at least one example"):
        trained(build_net(4, 3), make_blobs(3).subset([]), SgdSettings(), torch_generator(0))

"""unlearning/central/masks.py: pruned weights stay zero, all others train."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.client.training import local_train
from strategies.core.examples import Examples
from strategies.core.seeds import torch_generator
from unlearning.central.masks import apply_masks, flat_mask, mask_adjustment, masked, sparsity
from unlearning.central.parameters import flat_parameters

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]


def checkerboard(shape: tuple[int, int]) -> Tensor:
    return (torch.arange(shape[0]).unsqueeze(1) + torch.arange(shape[1])) % 2 == 0


# by hand


def test_sparsity_by_hand() -> None:
    """One of four and none of four weights pruned: 1/8. Nothing to prune: 0."""
    masks = {"a": torch.tensor([True, True, False, True]), "b": torch.ones(2, 2, dtype=torch.bool)}
    assert sparsity(masks) == 1 / 8
    assert sparsity({}) == 0.0


def test_flat_mask_by_hand(build_net: BuildNet) -> None:
    """A 2→1 layer with its second weight pruned: weight, pruned weight, bias."""
    model = build_net(2, 1)
    assert flat_mask(model, {"0.weight": torch.tensor([[True, False]])}).tolist() == [True, False, True]
    assert flat_mask(model, None).tolist() == [True, True, True]


def test_masking_clears_pruned_weights_of_a_copy(build_net: BuildNet) -> None:
    model = build_net(4, 3)
    before = flat_parameters(model)
    masks = {"0.weight": checkerboard((3, 4))}
    after = flat_parameters(masked(model, masks))
    assert torch.equal(after, before * flat_mask(model, masks))
    assert torch.equal(flat_parameters(model), before)


# properties


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_training_keeps_pruned_weights_at_zero(
    optimizer: str, build_net: BuildNet, make_blobs: MakeBlobs
) -> None:
    masks = {"0.weight": checkerboard((8, 4)), "2.weight": checkerboard((3, 8))}
    model = masked(build_net(4, 8, 3), masks)
    start = flat_parameters(model)
    settings = TrainSettings.model_validate({"optimizer": optimizer, "weight-decay": 0.1, "local-epochs": 3})
    local_train(model, make_blobs(60), settings, torch_generator(0), adjust=mask_adjustment(model, masks))
    moved = flat_parameters(model) != start
    assert torch.equal(moved, flat_mask(model, masks))


# errors


@pytest.mark.parametrize("name", ["0.weights", "0.bias"])
def test_a_mask_that_fits_no_parameter_is_refused(name: str, build_net: BuildNet) -> None:
    with pytest.raises(ValueError, match=rf"mask '{name}' of shape \(3, 4\) fits no trainable parameter"):
        masked(build_net(4, 3), {name: checkerboard((3, 4))})


# a damaged answer


def test_masking_only_at_the_start_is_noticed(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    masks = {"0.weight": checkerboard((3, 4))}
    model = masked(build_net(4, 3), masks)
    local_train(model, make_blobs(60), TrainSettings(), torch_generator(0))
    unmasked = flat_parameters(model)
    apply_masks(model, masks)
    assert not torch.equal(unmasked, flat_parameters(model))

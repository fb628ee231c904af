"""unlearning/central/l1_sparse.py: the fading penalty, and fine-tuning at its neutral value."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from strategies.core.examples import Examples
from strategies.core.seeds import torch_generator
from unlearning.central.finetune import FinetuneSettings, finetune
from unlearning.central.l1_sparse import FadingL1, L1SparseSettings, l1_sparse, penalty_weights
from unlearning.central.masks import flat_mask
from unlearning.central.parameters import flat_parameters

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]
Run = Callable[[torch.Generator], nn.Module]


# by hand


def test_the_penalty_by_hand() -> None:
    """γ = 1 over two epochs of one step: γ_0 = 1, γ_1 = ½.

    Weights (2, −3, 0) with gradient (0, 0, 0) get (1, −1, 0), then another (½, −½, 0).
    """
    weights, zero = [torch.tensor([2.0, -3.0, 0.0])], [torch.zeros(3)]
    penalty = FadingL1(penalty_weights(1.0, 2), steps_per_epoch=1)
    assert penalty(weights, zero)[0].tolist() == [1.0, -1.0, 0.0]
    assert penalty(weights, zero)[0].tolist() == [0.5, -0.5, 0.0]


def test_the_weight_holds_for_an_epoch() -> None:
    """Two epochs of three steps at γ = 1: 1, 1, 1, ½, ½, ½, which sums to 4½."""
    penalty, gradients = FadingL1(penalty_weights(1.0, 2), steps_per_epoch=3), [torch.zeros(1)]
    for _ in range(6):
        gradients = list(penalty([torch.ones(1)], gradients))
    assert gradients[0].item() == 4.5


def test_the_default_is_the_usable_one() -> None:
    assert L1SparseSettings().gamma == 5e-4


# neutral equals baseline, anything else differs


def test_without_penalty_it_is_fine_tuning_to_the_bit(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, retain = build_net(4, 8, 3), make_blobs(60)
    sparse = l1_sparse(model, retain, L1SparseSettings(gamma=0.0), torch_generator(0))
    tuned = finetune(model, retain, FinetuneSettings(), torch_generator(0))
    assert torch.equal(flat_parameters(sparse), flat_parameters(tuned))


def test_a_larger_penalty_leaves_a_sparser_model(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, retain = build_net(4, 8, 3), make_blobs(60)
    flats = [
        flat_parameters(l1_sparse(model, retain, L1SparseSettings(gamma=gamma), torch_generator(0)))
        for gamma in (0.0, 0.05, 0.5)
    ]
    norms = [float(flat.abs().sum()) for flat in flats]
    assert norms[0] > norms[1] > norms[2]
    small = [int((flat.abs() < 0.05).sum()) for flat in flats]
    assert small[0] < small[2]


# properties


def test_pruned_weights_stay_zero(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, masks = build_net(4, 3), {"0.weight": torch.arange(12).view(3, 4) % 2 == 0}
    result = flat_parameters(
        l1_sparse(model, make_blobs(30), L1SparseSettings(), torch_generator(0), masks=masks)
    )
    assert not result[~flat_mask(model, masks)].any()


def test_batches_come_from_the_generator(
    build_net: BuildNet, make_blobs: MakeBlobs, assert_seeded: Callable[[Run], None]
) -> None:
    model, retain = build_net(4, 3), make_blobs(60)
    assert_seeded(lambda generator: l1_sparse(model, retain, L1SparseSettings(), generator))


# errors


def test_a_negative_penalty_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        L1SparseSettings(gamma=-1.0)

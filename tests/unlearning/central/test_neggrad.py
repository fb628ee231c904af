"""unlearning/central/neggrad.py: descent on D_r beside ascent on D_f, with the paper's weights."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from strategies.client.evaluation import evaluate
from strategies.core.examples import Examples
from tests.unlearning.plain import both, cross_entropies, descend, epoch_of_batches, fresh
from unlearning.central.finetune import FinetuneSettings, finetune
from unlearning.central.masks import flat_mask
from unlearning.central.neggrad import NegGradSettings, example_weights, neggrad
from unlearning.central.parameters import flat_parameters

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]


def test_the_weights_by_hand() -> None:
    """90 stay, 10 go, β = ¾: (¾)(100/90) = 5/6 and −(¼)(100/10) = −5/2; their sums are ¾ and −¼ of 100."""
    stays, goes = example_weights(0.75, 90, 10)
    assert (stays, goes) == pytest.approx((5 / 6, -5 / 2))
    assert (90 * stays, 10 * goes) == pytest.approx((75, -25))


@pytest.mark.parametrize(("retained", "forgotten"), [(0, 3), (3, 0)])
def test_an_empty_set_is_refused(retained: int, forgotten: int) -> None:
    with pytest.raises(ValueError, match="both sets need an example, got"):
        example_weights(0.9, retained, forgotten)


def paper_loss(retain: Examples, forget: Examples, beta: float) -> Callable[[nn.Module, Tensor], Tensor]:
    """Return β mean ℓ(D_r) − (1 − β) mean ℓ(D_f), whatever the batch."""
    x, y, gone = both(retain, forget)

    def loss(model: nn.Module, _: Tensor) -> Tensor:
        each = cross_entropies(model(x), y)
        return beta * each[~gone].mean() - (1 - beta) * each[gone].mean()

    return loss


def test_full_batches_are_the_papers_loss(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, retain, forget = build_net(4, 8, 3), make_blobs(40), make_blobs(9, seed=1)
    settings = NegGradSettings(epochs=5, learning_rate=0.1, batch_size=49, weight_decay=0.01, beta=0.8)
    found = neggrad(model, retain, forget, settings, fresh())
    steps = [torch.zeros(0)] * 5
    slow = descend(
        deepcopy(model), steps, paper_loss(retain, forget, 0.8), rate=0.1, momentum=0.9, decay=0.01
    )
    torch.testing.assert_close(flat_parameters(found), flat_parameters(slow))


def test_batches_are_estimates_of_it(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    """Step by step: the mean over the batch of ℓ times N β/n_r, or −N (1 − β)/n_f."""
    model, retain, forget = build_net(4, 8, 3), make_blobs(30), make_blobs(12, seed=1)
    x, y, gone = both(retain, forget)
    weight = torch.where(gone, -42 * 0.1 / 12, 42 * 0.9 / 30)
    batches = epoch_of_batches(42, 8, fresh())

    def loss(twin: nn.Module, batch: Tensor) -> Tensor:
        return (weight[batch] * cross_entropies(twin(x[batch]), y[batch])).mean()

    settings = NegGradSettings(epochs=1, learning_rate=0.1, batch_size=8, beta=0.9)
    found = neggrad(model, retain, forget, settings, fresh())
    slow = descend(deepcopy(model), batches, loss, rate=0.1, momentum=0.9)
    torch.testing.assert_close(flat_parameters(found), flat_parameters(slow))


def test_more_ascent_leaves_a_higher_loss_on_the_forgotten(
    build_net: BuildNet, make_blobs: MakeBlobs
) -> None:
    model, retain, forget = build_net(4, 8, 3), make_blobs(40), make_blobs(9, seed=1)
    losses = [
        evaluate(neggrad(model, retain, forget, NegGradSettings(epochs=3, beta=beta), fresh()), forget).loss
        for beta in (1.0, 0.9, 0.7)
    ]
    assert losses[0] < losses[1] < losses[2]


def test_at_beta_one_a_full_batch_is_fine_tuning(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, retain, forget = build_net(4, 8, 3), make_blobs(40), make_blobs(9, seed=1)
    found = neggrad(model, retain, forget, NegGradSettings(epochs=3, batch_size=49, beta=1.0), fresh())
    tuned = finetune(model, retain, FinetuneSettings(epochs=3, batch_size=49), fresh())
    torch.testing.assert_close(flat_parameters(found), flat_parameters(tuned))


def test_pruned_weights_and_frozen_parts_stay(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, masks = build_net(4, 8, 3), {"0.weight": torch.arange(32).view(8, 4) % 2 == 0}
    found = neggrad(model, make_blobs(30), make_blobs(6), NegGradSettings(), fresh(), masks=masks)
    assert not flat_parameters(found)[~flat_mask(model, masks)].any()
    head = next(iter(model.children()))
    head.requires_grad_(False)
    frozen = neggrad(model, make_blobs(30), make_blobs(6), NegGradSettings(), fresh())
    assert frozen.get_parameter("0.weight").equal(model.get_parameter("0.weight"))
    assert not frozen.get_parameter("2.weight").equal(model.get_parameter("2.weight"))

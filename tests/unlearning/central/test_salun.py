"""unlearning/central/salun.py: wrong labels, learned by the salient weights alone."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from strategies.core.examples import Examples
from tests.unlearning.plain import both, cross_entropies, descend, epoch_of_batches, fresh
from unlearning.central.masks import flat_mask
from unlearning.central.parameters import flat_parameters, split_like
from unlearning.central.random_labels import random_labels
from unlearning.central.salun import SalUnSettings, salient, salun

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]


def test_the_largest_gradients_by_hand() -> None:
    """Half of four: 3 and 2. A third of three that are free, rounded up: 2. Of equals the first."""
    gradient = torch.tensor([1.0, -3.0, 2.0, 0.0])
    assert salient(gradient, 0.5).tolist() == [False, True, True, False]
    free = torch.tensor([True, False, True, True])
    assert salient(gradient, 1 / 3, free).tolist() == [False, False, True, False]
    assert salient(torch.ones(3), 0.5).tolist() == [True, True, False]
    assert salient(gradient, 1.0, free).equal(free)


def by_threshold(model: nn.Module, forget: Examples) -> Tensor:
    """Return 1(|∇ mean ℓ(D_f)| ≥ γ), γ the median of the absolute gradient, written out."""
    x, y = forget.batch(torch.arange(len(forget)))
    twin = deepcopy(model)
    gradients = torch.autograd.grad(cross_entropies(twin(x), y).mean(), list(twin.parameters()))
    sizes = torch.cat([g.reshape(-1) for g in gradients]).abs()
    return sizes >= sizes.sort(descending=True).values[(len(sizes) + 1) // 2 - 1]


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_it_is_the_papers_step(build_net: BuildNet, make_blobs: MakeBlobs, decay: float) -> None:
    """Random labels by SGD that moves the weights of m alone; weight decay moves no other either."""
    model, retain, forget = build_net(4, 8, 3), make_blobs(30), make_blobs(12, seed=1)
    m = by_threshold(model, forget)
    x, y, gone = both(retain, forget)
    generator = fresh()
    y[gone] = (y[gone] + torch.randint(1, 3, (12,), generator=generator)) % 3

    def loss(twin: nn.Module, batch: Tensor) -> Tensor:
        return cross_entropies(twin(x[batch]), y[batch]).mean()

    batches = [batch for _ in range(3) for batch in epoch_of_batches(42, 8, generator)]
    settings = SalUnSettings(epochs=3, learning_rate=0.1, batch_size=8, weight_decay=decay)
    found = flat_parameters(salun(model, retain, forget, settings, fresh()))
    where = list(split_like(m, model).values())
    slow = descend(deepcopy(model), batches, loss, rate=0.1, momentum=0.9, decay=decay, where=where)
    torch.testing.assert_close(found, flat_parameters(slow))
    assert found[~m].equal(flat_parameters(model)[~m])
    assert (found[m] != flat_parameters(model)[m]).any()


def test_with_all_weights_it_is_random_labels(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, retain, forget = build_net(4, 8, 3), make_blobs(30), make_blobs(12, seed=1)
    settings = SalUnSettings(epochs=2, salient_share=1.0)
    found = salun(model, retain, forget, settings, fresh())
    plain = random_labels(model, retain, forget, settings, fresh())
    assert flat_parameters(found).equal(flat_parameters(plain))


def test_pruned_weights_stay_zero_and_count_for_nothing(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, masks = build_net(4, 3), {"0.weight": torch.arange(12).view(3, 4) % 2 == 0}
    found = flat_parameters(
        salun(model, make_blobs(30), make_blobs(6), SalUnSettings(), fresh(), masks=masks)
    )
    kept = flat_mask(model, masks)
    assert not found[~kept].any()
    assert int((found != flat_parameters(model) * kept).sum()) == 5  # Half of 6 weights and 3 biases

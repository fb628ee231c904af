"""unlearning/central/random_labels.py: wrong labels of D_f beside the right ones of D_r."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from strategies.client.evaluation import evaluate
from strategies.core.examples import Examples, concatenated
from tests.unlearning.plain import both, cross_entropies, descend, epoch_of_batches, fresh
from unlearning.central.finetune import FinetuneSettings, finetune
from unlearning.central.masks import flat_mask
from unlearning.central.parameters import flat_parameters
from unlearning.central.random_labels import RandomLabelsSettings, random_labels, wrong_labels

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]


def test_a_label_is_never_its_own_and_each_other_as_likely() -> None:
    """Of 9,000 draws over 4 classes each of the 3 others gets 3,000 ± 4 standard deviations (45)."""
    labels = torch.full((9000,), 2)
    counts = torch.bincount(wrong_labels(labels, 4, fresh()), minlength=4)
    assert counts[2] == 0
    assert all(abs(int(counts[i]) - 3000) < 180 for i in (0, 1, 3))
    assert wrong_labels(torch.tensor([0, 1]), 2, fresh()).tolist() == [1, 0]


def test_one_class_has_no_wrong_label() -> None:
    with pytest.raises(ValueError, match="a wrong label needs at least 2 labels, got 1"):
        wrong_labels(torch.zeros(3, dtype=torch.int64), 1, fresh())


def test_it_is_training_on_the_changed_labels(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    """Labels are drawn first, then batches of D_r and D_f together."""
    model, retain, forget = build_net(4, 8, 3), make_blobs(30), make_blobs(12, seed=1)
    x, y, gone = both(retain, forget)
    generator = fresh()
    y[gone] = (y[gone] + torch.randint(1, 3, (12,), generator=generator)) % 3

    def loss(twin: nn.Module, batch: Tensor) -> Tensor:
        return cross_entropies(twin(x[batch]), y[batch]).mean()

    batches = [batch for _ in range(2) for batch in epoch_of_batches(42, 8, generator)]
    settings = RandomLabelsSettings(epochs=2, learning_rate=0.1, batch_size=8, weight_decay=0.01)
    found = random_labels(model, retain, forget, settings, fresh())
    slow = descend(deepcopy(model), batches, loss, rate=0.1, momentum=0.9, decay=0.01)
    torch.testing.assert_close(flat_parameters(found), flat_parameters(slow))


def test_the_loss_on_the_forgotten_rises(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, retain, forget = build_net(4, 16, 3), make_blobs(30), make_blobs(12, seed=1)
    everything = concatenated([retain, forget])
    before = finetune(model, everything, FinetuneSettings(learning_rate=0.1), fresh())
    found = random_labels(before, retain, forget, RandomLabelsSettings(learning_rate=0.1), fresh())
    assert evaluate(found, forget).loss > evaluate(before, forget).loss


def test_without_a_forgotten_example_it_is_fine_tuning(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, retain = build_net(4, 8, 3), make_blobs(30)
    found = random_labels(model, retain, retain.subset([]), RandomLabelsSettings(), fresh())
    tuned = finetune(model, retain, FinetuneSettings(), fresh())
    torch.testing.assert_close(flat_parameters(found), flat_parameters(tuned))


def test_pruned_weights_stay_zero(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, masks = build_net(4, 3), {"0.weight": torch.arange(12).view(3, 4) % 2 == 0}
    found = random_labels(model, make_blobs(30), make_blobs(6), RandomLabelsSettings(), fresh(), masks=masks)
    assert not flat_parameters(found)[~flat_mask(model, masks)].any()

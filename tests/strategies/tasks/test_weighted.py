"""strategies/tasks/weighted.py: by hand, and every mean the arithmetic one."""

import math

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn
from torch.nn import functional

from strategies.client.settings import TrainSettings
from strategies.client.training import summed_gradient
from strategies.core.errors import BadInput
from strategies.core.examples import TensorExamples
from strategies.core.secret_random import Randomness
from strategies.core.seeds import torch_generator
from strategies.layers.privacy.training import PrivateTrainer
from strategies.task import CLASSIFICATION
from strategies.tasks.weighted import WeightedClassification

seeds = st.integers(0, 2**32)
WEIGHTED = WeightedClassification({1: 3.0})


def test_weights_and_smoothing_by_hand() -> None:
    """p = ¾, ¼. Label 1 weighs 3: 3 ln 4. Smoothed by ½: ½ · 3 ln 4 + ¼ ln 4⁄3 + ¾ ln 4."""
    outputs, targets = torch.tensor([[3.0, 1.0], [3.0, 1.0]]).log(), torch.tensor([0, 1])
    assert WEIGHTED.losses(outputs, targets).tolist() == pytest.approx([math.log(4 / 3), 3 * math.log(4)])
    smooth = WeightedClassification({1: 3.0}, 0.5).losses(outputs, targets)
    expected = 1.5 * math.log(4) + (math.log(4 / 3) + 3 * math.log(4)) / 4
    assert float(smooth[1]) == pytest.approx(expected)
    assert float(WEIGHTED.loss(outputs, targets)) == pytest.approx((math.log(4 / 3) + 3 * math.log(4)) / 2)


def test_the_weighted_mean_of_torch_is_another() -> None:
    """Σ w ℓ / Σ w depends on the labels of the batch; 1/n Σ w ℓ adds up over batches and clients."""
    outputs, targets = torch.tensor([[3.0, 1.0], [3.0, 1.0]]).log(), torch.tensor([0, 1])
    of_torch = functional.cross_entropy(outputs, targets, weight=torch.tensor([1.0, 3.0]))
    assert float(of_torch) == pytest.approx((math.log(4 / 3) + 3 * math.log(4)) / 4)
    assert float(WEIGHTED.loss(outputs, targets)) == pytest.approx(2 * float(of_torch))


@given(seeds, st.integers(2, 9))
def test_the_mean_over_all_is_the_weighted_mean_over_clients(seed: int, split: int) -> None:
    generator = torch_generator(seed)
    outputs = torch.randn(10, 3, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (10,), generator=generator)
    parts = [(outputs[:split], targets[:split]), (outputs[split:], targets[split:])]
    pooled = sum(len(y) * WEIGHTED.loss(x, y) for x, y in parts) / 10
    torch.testing.assert_close(pooled, WEIGHTED.loss(outputs, targets))


def test_private_training_and_gradient_sums_agree_with_the_losses() -> None:
    """Without noise and clipping, one private step over all examples is one along the mean of the losses."""
    generator = torch_generator(3)
    x, y = torch.randn(12, 4, generator=generator), torch.randint(3, (12,), generator=generator)
    data, model = TensorExamples(x, y), nn.Linear(4, 3)
    before = [p.detach().clone() for p in model.parameters()]
    summed_gradient(model, [data], [1 / 12], WEIGHTED)
    wanted = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    direct = torch.autograd.grad(WEIGHTED.loss(model(x), y), list(model.parameters()))
    for found, true in zip(wanted, direct, strict=True):
        torch.testing.assert_close(found, true)
    _private_step(model, data)
    for old, new, gradient in zip(before, model.parameters(), wanted, strict=True):
        torch.testing.assert_close(new.detach(), old - 0.1 * gradient, atol=1e-6, rtol=1e-4)


def _private_step(model: nn.Module, data: TensorExamples) -> None:
    settings = TrainSettings(learning_rate=0.1, momentum=0.0, batch_size=12, local_epochs=1)
    trainer = PrivateTrainer(0.0, 1e6, Randomness("seeded"))
    trainer(model, data, settings, torch_generator(0), task=WEIGHTED)


def test_neutral_settings_are_plain_classification() -> None:
    generator = torch_generator(1)
    outputs, targets = torch.randn(8, 3, generator=generator), torch.randint(3, (8,), generator=generator)
    neutral = WeightedClassification({})
    torch.testing.assert_close(neutral.losses(outputs, targets), CLASSIFICATION.losses(outputs, targets))
    assert neutral.labelled
    assert neutral.figure == "accuracy"


def test_a_weight_of_no_class_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^task.class-weights: given a weight of class 5, .* classes 0 to 1$"):
        WeightedClassification({5: 2.0}).losses(torch.zeros(1, 2), torch.tensor([0]))

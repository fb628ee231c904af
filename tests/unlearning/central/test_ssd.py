"""unlearning/central/ssd.py: weights that matter more to D_f than to all are shrunk."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from strategies.core.examples import Examples, TensorExamples
from strategies.tasks.regression import Regression
from tests.unlearning.plain import cross_entropies
from unlearning.central.gradients import ExampleSum
from unlearning.central.parameters import flat_parameters
from unlearning.central.ssd import chosen_alpha, dampened, factors, importance_sum, ssd
from unlearning.traits.ssd import SsdSettings

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]


def test_the_factors_by_hand() -> None:
    """α = 10, λ = 2. 30 > 10·2: 2·2/30. 8 < 10·1: 1. 50 > 10·0: 0. 0 and 0: 1. At λ = 20 min(…, 1) is 1."""
    of_forgotten, of_all = torch.tensor([30.0, 8.0, 50.0, 0.0]), torch.tensor([2.0, 1.0, 0.0, 0.0])
    found = factors(of_forgotten, of_all, alpha=10, dampening=2)
    assert found.tolist() == pytest.approx([4 / 30, 1, 0, 1])
    assert factors(of_forgotten, of_all, alpha=10, dampening=20)[0] == 1


def test_the_own_alpha_by_hand() -> None:
    """The root of |D| / |D_f|: 3 for a ninth; a given one stays."""
    assert chosen_alpha(SsdSettings(), 5, 45) == pytest.approx(3)
    assert chosen_alpha(SsdSettings(alpha=7), 5, 45) == 7
    with pytest.raises(ValueError, match="the mean over 0 examples is not defined"):
        chosen_alpha(SsdSettings(), 0, 45)


def squares(model: nn.Module, examples: Examples) -> Tensor:
    """Return the mean of each example's squared gradient, one example after another."""
    twin, total = deepcopy(model), torch.zeros(0)
    for i in range(len(examples)):
        x, y = examples.batch(torch.tensor([i]))
        gradients = torch.autograd.grad(cross_entropies(twin(x), y).sum(), list(twin.parameters()))
        row = torch.cat([g.reshape(-1) for g in gradients]).double() ** 2
        total = row if i == 0 else total + row
    return total / len(examples)


def test_it_is_the_papers_algorithm(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    """For i: if I_f > α I_D: θ_i ← min(λ I_D / I_f, 1) θ_i, with D all of the data."""
    model, data = build_net(4, 8, 3), make_blobs(40)
    forget, retain = data.subset(range(0, 40, 6)), data.without(range(0, 40, 6))
    of_forgotten, of_all = squares(model, forget), squares(model, data)
    expected = flat_parameters(model).clone()
    for i in range(len(expected)):
        if of_forgotten[i] > 1.5 * of_all[i]:
            expected[i] *= min(1.2 * of_all[i] / of_forgotten[i], 1.0)
    found = flat_parameters(ssd(model, retain, forget, SsdSettings(alpha=1.5, dampening=1.2)))
    torch.testing.assert_close(found, expected)
    changed = int((found != flat_parameters(model)).sum())
    assert 0 < changed < len(expected)


def test_an_alpha_of_the_largest_ratio_changes_nothing(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, data = build_net(4, 8, 3), make_blobs(40)
    forget, retain = data.subset(range(4)), data.subset(range(4, 40))
    assert flat_parameters(ssd(model, retain, forget, SsdSettings(alpha=10))).equal(flat_parameters(model))


def test_sums_add_up(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, data = build_net(4, 8, 3), make_blobs(20)
    halves = [importance_sum(model, data.subset(part)) for part in (range(8), range(8, 20), [])]
    whole = importance_sum(model, data)
    torch.testing.assert_close(ExampleSum.join(halves).total, whole.total)
    assert ExampleSum.join(halves).count == whole.count == 20


def test_a_regression_has_importances_too(build_net: BuildNet) -> None:
    model = build_net(2, 1)
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    y = model(x).detach() - 3  # ½ r² with r = 3: the gradient is (3·1, 3·2) and 3 for the bias
    found = importance_sum(model, TensorExamples(x, y), Regression(1.0))
    assert found.total.tolist() == pytest.approx([9, 36, 9])


def test_pruned_weights_stay_zero(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model = build_net(4, 3)
    with torch.no_grad():
        model.get_parameter("0.weight")[0].zero_()
    sums = [importance_sum(model, part) for part in (make_blobs(9), make_blobs(30, seed=1))]
    found = dampened(model, *sums, SsdSettings(alpha=0.5))
    assert not found.get_parameter("0.weight")[0].any()

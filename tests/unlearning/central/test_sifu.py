"""unlearning/central/sifu.py: how far a client can have moved a training, against trainings without it."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

from strategies.core.augmenting import Augmented
from strategies.core.examples import TensorExamples
from strategies.models.batch_norm import Frozen, mark
from strategies.task import CLASSIFICATION
from strategies.tasks.regression import Regression
from unlearning.central.sifu import largest_square, next_sensitivity, stretch


def test_stretch_by_hand() -> None:
    """η = 0.5: with β = 1 a flat direction stays, 1; with λ = 1 alone all shrink to a half, twice to ¼."""
    assert stretch([0.5], smoothness=1.0) == 1.0
    assert stretch([0.5, 0.5], smoothness=0.0, decay=1.0) == 0.25
    assert stretch([0.5], smoothness=8.0, decay=1.0) == pytest.approx(3.5)  # 1 − ½ · 9 = −3.5
    assert stretch([], smoothness=9.0) == 1.0


def test_largest_square_by_hand() -> None:
    examples = TensorExamples(torch.tensor([[3.0, 4.0], [-6.0, 0.0]]), torch.tensor([0, 1]))
    assert largest_square(nn.Linear(2, 3), examples, CLASSIFICATION) == 37.0
    assert largest_square(nn.Linear(2, 3, bias=False), examples, CLASSIFICATION) == 36.0
    frozen = nn.Linear(2, 2, bias=False).requires_grad_(False)
    frozen.weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
    assert largest_square(nn.Sequential(frozen, nn.Linear(2, 3)), examples, CLASSIFICATION) == 145.0


class Twice(nn.Module):
    """Uses its one layer twice, so that its outputs are no linear function of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output of its own output."""
        found: Tensor = self.layer(self.layer(x))
        return found


@pytest.mark.parametrize(
    "model",
    [
        Twice(),
        nn.Sequential(nn.Linear(2, 2), nn.Tanh()),
        nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2)),
        nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
    ],
)
def test_other_models_are_refused(model: nn.Module) -> None:
    examples = TensorExamples(torch.ones(9, 2), torch.zeros(9, dtype=torch.int64))
    with pytest.raises(ValueError, match="one linear layer"):
        largest_square(model, examples, CLASSIFICATION)


@pytest.mark.parametrize("build", [nn.BatchNorm1d, lambda size: nn.BatchNorm1d(size, affine=False)])
def test_features_that_depend_on_the_batch_are_refused(build: Callable[[int], nn.Module]) -> None:
    """Training in batches of 8 has other, longer features than all 40 at once: no bound holds for it."""
    model = nn.Sequential(build(2).requires_grad_(False), nn.Linear(2, 2))
    draw = torch.Generator().manual_seed(1)
    examples = TensorExamples(torch.randn(40, 2, generator=draw), torch.zeros(40, dtype=torch.int64))
    with pytest.raises(ValueError, match="depends on the rest of the batch"):
        largest_square(model, examples, CLASSIFICATION)
    settled = nn.Sequential(build(2).requires_grad_(False), nn.Linear(2, 2))
    mark(cast(nn.BatchNorm1d, settled[0]), Frozen)
    assert largest_square(settled, examples, CLASSIFICATION) > 1


def test_inputs_that_training_varies_are_refused() -> None:
    """Three times as long in training, so that 1 + 9 · 25 = 226 would bound them, and not 26."""
    examples = TensorExamples(torch.tensor([[3.0, 4.0]]), torch.tensor([0]))
    varied = Augmented(examples, lambda x, _: cast(Tensor, x) * 3).subset([0])
    with pytest.raises(ValueError, match="training varies the inputs"):
        largest_square(nn.Linear(2, 2), varied, CLASSIFICATION)


def descended(start: Tensor, x: Tensor, y: Tensor, rate: float, decay: float, steps: int) -> Tensor:
    """Return a ridge regression's weights after steps of gradient descent on ½ (x·w − y)², float64."""
    for _ in range(steps):
        start = start - rate * (x.T @ (x @ start - y) / len(y) + decay * start)
    return start


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rate=st.floats(0.01, 0.6),
    decay=st.floats(0, 1),
    steps=st.integers(1, 3),
)
def test_the_bound_holds_on_quadratics(seed: int, rate: float, decay: float, steps: int) -> None:
    """Three clients, of which one leaves; the model without it is trained here. Some rates diverge."""
    draw = torch.Generator().manual_seed(seed)
    parts = [
        [torch.randn(5, 3, generator=draw).double(), torch.randn(5, generator=draw).double()]
        for _ in range(3)
    ]
    parts[0][1] += 5
    task = Regression()
    squares = [
        largest_square(nn.Linear(3, 1, bias=False), TensorExamples(x.float(), y.float()), task)
        for x, y in parts[1:]
    ]
    curvature = task.curvature(1)
    factor = sum(stretch([rate] * steps, curvature * s * (1 + 1e-6), decay) for s in squares) / 2
    with_it, without = torch.zeros(3).double(), torch.zeros(3).double()
    psi = 0.0
    for _ in range(5):
        updates = [descended(with_it, x, y, rate, decay, steps) - with_it for x, y in parts]
        mean, others = sum(updates) / 3, sum(updates[1:]) / 2
        psi = next_sensitivity(psi, factor, float((mean - others).norm()))
        with_it = with_it + mean
        without = (
            without + sum(descended(without, x, y, rate, decay, steps) - without for x, y in parts[1:]) / 2
        )
        distance = float((with_it - without).norm())
        assert 0 < distance <= psi * (1 + 1e-9)


def test_without_its_factor_the_bound_would_not_hold() -> None:
    """At a rate that diverges, Σ Δ_t alone is too small: the factor of 3.5 is needed.

    One client of x = 3, y = 1 stays and one of y = −1 leaves: θ' and θ part by 3.5 times as much per round.
    """
    theta = without = 0.0
    psi = plain = 0.0
    for _ in range(4):
        stays, leaves = (-0.5 * 3 * (3 * theta - y) for y in (1.0, -1.0))
        psi = next_sensitivity(psi, stretch([0.5], 9.0), abs((stays + leaves) / 2 - stays))
        plain += abs((stays + leaves) / 2 - stays)
        theta, without = theta + (stays + leaves) / 2, without - 0.5 * 3 * (3 * without - 1)
    assert plain < abs(theta - without) <= psi

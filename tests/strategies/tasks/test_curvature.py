"""How strongly losses curve in the outputs, by tasks' own word and by differentiating twice."""

import pytest
import torch
from torch import Tensor

from strategies.core.seeds import torch_generator
from strategies.task import CLASSIFICATION, Classification, Task
from strategies.tasks.multi_label import MultiLabel
from strategies.tasks.regression import Regression
from strategies.tasks.segmentation import Segmentation
from strategies.tasks.weighted import WeightedClassification


@pytest.mark.parametrize(
    ("task", "targets"),
    [
        (CLASSIFICATION, torch.tensor([1])),
        (WeightedClassification({0: 2.0, 2: 0.5}), torch.tensor([0])),
        (WeightedClassification({0: 2.0}, smoothing=0.3), torch.tensor([0])),
        (MultiLabel(), torch.tensor([[True, False, True]])),
        (Regression(num_outputs=3), torch.zeros(1, 3)),
        (Regression(num_outputs=3, squared_error="full"), torch.zeros(1, 3)),
    ],
)
def test_the_curvature_bounds_the_second_derivatives(task: Task, targets: Tensor) -> None:
    """Over outputs where the Hessian is largest, such as two equal logits, and over random ones."""
    bound = task.curvature(3)
    assert bound is not None
    draw = torch_generator(0)
    points = [torch.tensor([[0.0, 0.0, -30.0]]), torch.zeros(1, 3), *(torch.randn(20, 1, 3, generator=draw))]
    largest = []
    for outputs in points:
        z = outputs.double().requires_grad_()
        (slope,) = torch.autograd.grad(task.losses(z, targets).sum(), z, create_graph=True)
        rows = [torch.autograd.grad(slope[0, k], z, retain_graph=True)[0] for k in range(3)]
        values = torch.linalg.eigvalsh(torch.cat(rows))
        assert values.min() >= -1e-9
        largest.append(float(values.max()))
    assert 0.6 * bound < max(largest) <= bound + 1e-9


def test_a_loss_of_its_own_has_no_known_curvature() -> None:
    class Flattened(Classification):
        def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return super().losses(outputs, targets).tanh()

    assert Flattened().curvature(3) is None
    assert Segmentation().curvature(3) is None

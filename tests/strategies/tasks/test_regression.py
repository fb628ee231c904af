"""strategies/tasks/regression.py: by hand."""

import pytest
import torch

from strategies.core.errors import BadInput
from strategies.task import OutputSpec
from strategies.tasks.choice import scale_of
from strategies.tasks.regression import Regression

OUTPUTS, TARGETS = torch.tensor([[1.0], [3.0], [9.0]]), torch.tensor([1.0, 4.0, 1.0])


def test_one_number_by_hand() -> None:
    """Residuals 0, −1 and 8, of which the scale is 2: scores 100, 75 and 0."""
    task = Regression(scale=2.0)
    assert task.losses(OUTPUTS, TARGETS).tolist() == [0.0, 0.5, 32.0]
    assert Regression(squared_error="full").losses(OUTPUTS, TARGETS).tolist() == [0.0, 1.0, 64.0]
    assert task.predict(OUTPUTS).tolist() == [1.0, 3.0, 9.0]
    assert task.scores(OUTPUTS, TARGETS).tolist() == [100.0, 75.0, 0.0]
    assert task.margins(OUTPUTS, TARGETS).tolist() == [0.0, -1.0, 8.0]
    assert task.confidences(OUTPUTS, TARGETS).tolist() == [0.0, -1.0, -8.0]
    assert task.divergences(OUTPUTS, torch.tensor([[1.0], [1.0], [9.0]])).tolist() == [0.0, 1.0, 0.0]
    assert task.groups(TARGETS) is None
    assert not task.has_groups
    assert Regression(num_outputs=3).outputs(OutputSpec(7)) == 3


def test_several_numbers_are_judged_by_their_mean_square() -> None:
    """Residuals (3, −1): loss ½ · 5, score at scale 5 of 100 (1 − 5⁄25), margin 1, confidence −√5."""
    task, outputs, targets = Regression(5.0, 2), torch.tensor([[4.0, 1.0]]), torch.tensor([[1, 2]])
    assert task.losses(outputs, targets).tolist() == [2.5]
    assert task.scores(outputs, targets).tolist() == [80.0]
    assert task.margins(outputs, targets).tolist() == [1.0]
    assert task.confidences(outputs, targets).tolist() == pytest.approx([-(5**0.5)])
    assert task.predict(outputs).tolist() == [[4.0, 1.0]]


@pytest.mark.parametrize(("kind", "expected"), [("half", 1.0), ("full", 2.0)])
def test_expected_squares_are_those_of_gaussian_noise(kind: str, expected: float) -> None:
    """ℓ = c r² is the likelihood of noise of variance 1⁄2c; E (2 c r)² = 4 c² · 1⁄2c."""
    task = Regression(squared_error=kind)  # type: ignore[arg-type]
    outputs = torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
    ((weights, targets),) = task.expected_targets(outputs.detach())
    (gradient,) = torch.autograd.grad(task.losses(outputs, targets).sum(), outputs)
    assert float(weights * gradient.square()) == pytest.approx(expected)


def test_the_scale_is_the_root_mean_variance_of_the_targets() -> None:
    """Variances 1 and 49 over two numbers: √25."""
    assert scale_of(torch.tensor([[1.0, 0.0], [3.0, 14.0]])) == pytest.approx(5.0)


def test_without_a_scale_nothing_is_scored() -> None:
    with pytest.raises(BadInput, match=r"^task\.scale: given 0, .*; allowed the residual, above 0"):
        Regression().scores(OUTPUTS, TARGETS)


def test_another_number_of_outputs_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^task\.outputs: the model gives 1 numbers .* the targets have 2$"):
        Regression().losses(OUTPUTS, torch.zeros(3, 2))

"""unlearning/central/lessons.py: examples that each have their own part in the loss."""

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn

from strategies.core.augmenting import Augmented
from strategies.core.examples import Examples, Inputs, TensorExamples
from strategies.core.seeds import torch_generator
from strategies.tasks.regression import Regression
from tests.unlearning.plain import fresh
from unlearning.central.lessons import Lesson, Numbered, taught
from unlearning.central.parameters import flat_parameters
from unlearning.central.training import SgdSettings, trained

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]
ONE_STEP = SgdSettings(epochs=1, learning_rate=1.0, momentum=0.0, batch_size=8)


class Line(nn.Module):
    """f(x) = w·x with w = 1."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.w


def numbers(*pairs: tuple[float, float]) -> TensorExamples:
    x, y = torch.tensor(pairs, dtype=torch.float64).unbind(dim=1)
    return TensorExamples(x.unsqueeze(1), y.unsqueeze(1))


def test_a_step_by_hand() -> None:
    """f = w·x at w = 1, ½ r²: (1, 0) weighs 2, (2, 1) weighs −1 and has a teacher of weight ½ that says 0.

    Gradients: 2 · 1·(1 − 0) = 2, and −1 · 2·(2 − 1) = −2; the teacher's term is ½ (f − 0)², of gradient
    ½ · 2 · 2 · 2 = 4. Their mean over two examples is (2 − 2 + 4) / 2 = 2, so that w = 1 − 2 = −1.
    """
    first, second = numbers((1.0, 0.0)), numbers((2.0, 1.0))
    lessons = [
        Lesson(first, first.y, 2.0, 0.0, torch.zeros(1, 1)),
        Lesson(second, second.y, -1.0, 0.5, torch.zeros(1, 1)),
    ]
    found = taught(Line(), lessons, ONE_STEP, fresh(), task=Regression(1.0))
    assert flat_parameters(found).tolist() == pytest.approx([-1.0])


def test_at_weight_one_it_is_training(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    """Of two sets, on both of them in their order."""
    model, data = build_net(4, 8, 3), make_blobs(45)
    halves = [Lesson.labels(data.subset(range(20))), Lesson.labels(data.subset(range(20, 45)))]
    settings = SgdSettings(epochs=2, weight_decay=0.01, batch_size=8)
    found, plain = taught(model, halves, settings, fresh()), trained(model, data, settings, fresh())
    torch.testing.assert_close(flat_parameters(found), flat_parameters(plain))


def test_sets_without_an_example_are_left_out(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, data = build_net(4, 3), make_blobs(12)
    lessons = [Lesson.labels(data), Lesson.labels(data.subset([]), -5.0)]
    found, alone = (taught(model, some, SgdSettings(), fresh()) for some in (lessons, lessons[:1]))
    assert flat_parameters(found).equal(flat_parameters(alone))
    with pytest.raises(ValueError, match="lessons need at least one example"):
        taught(model, lessons[1:], SgdSettings(), fresh())


# the joined set


def test_batches_hold_each_example_with_its_number() -> None:
    parts = [TensorExamples(torch.tensor([[10.0], [11.0]]), torch.zeros(2)), numbers((12.0, 0.0))]
    joined = Numbered(tuple(parts))
    inputs, index = joined.batch(torch.tensor([2, 0, 1]))
    assert isinstance(inputs, Tensor)
    assert inputs.flatten().tolist() == [12.0, 10.0, 11.0]
    assert index.tolist() == [2, 0, 1]
    assert len(joined) == 3
    part = joined.subset([1, 2])
    assert [part.batch(torch.tensor([0, 1]))[1].tolist(), len(part)] == [[1, 2], 2]
    assert part.subset([1]).batch(torch.tensor([0]))[1].tolist() == [2]
    assert joined.groups() is joined.group_of(index) is None


class Named(TensorExamples):
    """Examples whose inputs have a name."""

    def batch(self, index: Tensor) -> tuple[Inputs, Tensor]:
        x, y = super().batch(index)
        return {"a": x, "b": -x}, y

    def subset(self, indices: object) -> "Named":
        raise AssertionError


def test_inputs_by_name_are_joined_name_by_name() -> None:
    x, y = torch.arange(3.0).unsqueeze(1), torch.zeros(3)
    inputs, _ = Numbered((Named(x, y), Named(x + 3, y))).batch(torch.tensor([4, 1, 5]))
    assert isinstance(inputs, dict)
    assert [inputs["a"].flatten().tolist(), inputs["b"].flatten().tolist()] == [[4, 1, 5], [-4, -1, -5]]


def test_each_set_varies_its_own_inputs() -> None:
    """As local training of the same examples in one set does."""

    def noisy(inputs: Inputs, generator: Generator) -> Inputs:
        assert isinstance(inputs, Tensor)
        return inputs + torch.rand(inputs.shape, generator=generator)

    data = Augmented(TensorExamples(torch.zeros(4, 1), torch.zeros(4)), noisy)
    joined = Numbered((data.subset([0, 1]), data.subset([2, 3])))
    inputs, _ = joined.training_batch(torch.tensor([0, 1]), torch_generator(1))
    expected, _ = data.training_batch(torch.tensor([0, 1]), torch_generator(1))
    assert isinstance(inputs, Tensor)
    assert inputs.equal(expected)
    assert inputs.any()

"""Gradients written out are those of autograd."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.client.stackable import Stackable, examined
from strategies.client.training import Training
from strategies.client.written_out import WrittenOut
from strategies.core.examples import Inputs, TensorExamples
from strategies.core.seeds import seeded_layers, torch_generator
from strategies.models.mask import hold
from strategies.task import CLASSIFICATION, Classification, Task
from strategies.tasks.regression import Regression

COPIES, ROWS = 3, 4


def deep(*inner: nn.Module, width: int = 6) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, width), *inner, nn.Linear(width, 3))


KNOWN: dict[str, Callable[[], nn.Module]] = {
    "a layer alone": lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 3)),
    "no bias": lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 3, bias=False)),
    "rectified": lambda: deep(nn.ReLU()),
    "tanh": lambda: deep(nn.Tanh()),
    "one group": lambda: deep(nn.GroupNorm(1, 6), nn.ReLU()),
    "three groups": lambda: deep(nn.GroupNorm(3, 12), nn.ReLU(), width=12),
    "a norm without weights": lambda: deep(nn.GroupNorm(2, 6, affine=False), nn.Tanh()),
    "dropout": lambda: deep(nn.Dropout(0.5), nn.ReLU(), nn.Dropout(0.0)),
    "a chain in a chain": lambda: deep(nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(6, 6), nn.Tanh()))),
    "layers without weights in front": lambda: nn.Sequential(nn.Tanh(), nn.Dropout(0.5), deep(nn.ReLU())),
}


class Own(nn.Linear):
    """Another kind of layer."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def hooked() -> nn.Module:
    model = deep(nn.ReLU())
    model[2].register_forward_hook(lambda layer, given, output: 2 * output)  # type: ignore[index, operator]
    return model


def tied() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer)


def frozen() -> nn.Module:
    model = deep(nn.ReLU())
    model.get_parameter("1.bias").requires_grad_(False)
    return model


UNKNOWN: dict[str, Callable[[], nn.Module]] = {
    "a class of its own": lambda: nn.Sequential(nn.Flatten(), Own(6, 3)),
    "a hook": hooked,
    "tied weights": tied,
    "frozen weights": frozen,
    "pruned weights": lambda: hold(deep(), {"1.weight": torch.rand(6, 6) > 0.5}),
    "an unknown layer": lambda: deep(nn.GELU()),
}


def training(model: nn.Module, task: Task = CLASSIFICATION) -> Training:
    generator = torch_generator(0, "data")
    x = torch.randn(5, 2, 3, generator=generator)
    y = torch.arange(5) % 3
    examples = TensorExamples(x, y if task is CLASSIFICATION else torch.randn(5, 3, generator=generator))
    return Training(model, examples, TrainSettings(), generator, 1, task=task)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with seeded_layers(torch_generator(0, "model")):
        return make()


def both_ways(found: Stackable) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """Return the gradients of three models that differ, and the sums: by autograd, and written out.

    The last example counts for nothing with the first model.
    """
    own = found.training
    generator = torch_generator(1, "copies")
    noise = [torch.randn(COPIES, *p.shape, generator=generator) for p in own.parameters]
    copies = [p.detach() + 0.1 * n for p, n in zip(own.parameters, noise, strict=True)]
    inputs = torch.randn(COPIES, ROWS, 2, 3, generator=generator)
    targets = torch.randint(0, 3, (COPIES, ROWS), generator=generator)
    if own.task is not CLASSIFICATION:
        targets = torch.randn(COPIES, ROWS, 3, generator=generator)
    weights = torch.rand(COPIES, ROWS, generator=generator)
    weights[0, -1] = 0
    drawn = [2.0 * (torch.rand(COPIES, ROWS, *n.shape, generator=generator) > 0.5) for n in found.noises]
    expected, sums = found.by_autograd(copies, (inputs, targets), weights, drawn)
    places = [torch.full_like(p, torch.nan) for p in copies]
    assert found.written is not None
    with torch.no_grad():
        losses = found.on(copies, places)((inputs, targets), weights, drawn)
    return expected, places, sums, losses


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("task", [CLASSIFICATION, Regression(1.0, 3)])
def test_they_are_those_of_autograd(name: str, task: Task) -> None:
    expected, found, sums, losses = both_ways(examined(training(seeded(KNOWN[name]), task)))
    torch.testing.assert_close(losses, sums)
    for a, b in zip(found, expected, strict=True):
        assert b.norm() > 0
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_by_hand() -> None:
    """Two classes, w = 0, no bias: p = ½, so of x = 2 with label 1 and weight 3 it is 3 · 2 · (½, −½)."""
    model = nn.Linear(1, 2, bias=False)
    written = WrittenOut.of(model, CLASSIFICATION)
    assert written is not None
    into, batch = [torch.zeros(1, 2, 1)], (torch.tensor([[[2.0]]]), torch.tensor([[1]]))
    chain = written.on([torch.zeros(1, 2, 1)], into)
    losses = chain.gradients(batch, torch.tensor([[3.0]]), [])
    assert into[0].flatten().tolist() == [3.0, -3.0]
    torch.testing.assert_close(losses, 3 * torch.tensor([2.0]).log())


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_left_to_autograd(name: str) -> None:
    assert WrittenOut.of(UNKNOWN[name](), CLASSIFICATION) is None
    assert examined(training(UNKNOWN[name]())).written is None


def test_shapes_that_a_layer_does_not_take_are_left_to_autograd() -> None:
    """A linear layer along the last of two dimensions."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    assert WrittenOut.of(model, CLASSIFICATION) is not None
    assert examined(training(model)).written is None


class Reversed(Task):
    """A task whose model is called with the inputs turned around."""

    def forward(self, model: Callable[..., Tensor], inputs: Inputs) -> Tensor:
        return model(inputs.flip(1))  # type: ignore[union-attr]

    losses = Regression.losses
    predict = scores = lambda self, outputs, targets=None: outputs  # type: ignore[assignment]


def test_a_task_that_calls_the_model_in_its_own_way_is_left_to_autograd() -> None:
    assert WrittenOut.of(deep(), Reversed()) is None


def test_gradients_that_are_not_autograds_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that calls itself by torch's name, and differs: the trial finds it."""
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: x.clamp(min=0.5))
    assert examined(training(seeded(KNOWN["rectified"]))).written is None


@pytest.mark.parametrize("classes", [3, 40])
def test_the_gradient_of_outputs_is_that_of_any_task(classes: int) -> None:
    """Few classes and many are computed in another order of axes."""
    outputs, targets = torch.randn(COPIES, ROWS, classes), torch.randint(0, classes, (COPIES, ROWS))
    weights = torch.rand(COPIES, ROWS)

    by_formula = CLASSIFICATION.weighted_gradients(outputs, targets, weights)
    by_autograd = Task.weighted_gradients(CLASSIFICATION, outputs, targets, weights)
    assert by_formula[0].is_contiguous()
    for a, b in zip(by_formula, by_autograd, strict=True):
        torch.testing.assert_close(a, b)


class Halved(Classification):
    """Half of the cross-entropy: the formula is not that of its losses."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return half of the loss of each example."""
        return super().losses(outputs, targets) / 2


def test_a_task_of_other_losses_has_their_gradients() -> None:
    outputs, targets = torch.randn(COPIES, ROWS, 3), torch.randint(0, 3, (COPIES, ROWS))
    weights = torch.rand(COPIES, ROWS)
    whole = CLASSIFICATION.weighted_gradients(outputs, targets, weights)
    for a, b in zip(Halved().weighted_gradients(outputs, targets, weights), whole, strict=True):
        torch.testing.assert_close(a, b / 2)

"""Small models and data, drawn from generators of their own."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import nn

from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator
from unlearning.central.parameters import flat_parameters

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]


def _redrawn(model: nn.Module, seed: int) -> nn.Module:
    generator = torch_generator(seed, "test weights")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


@pytest.fixture
def build_net() -> BuildNet:
    """Build a multi-layer perceptron of the given widths, in float64."""

    def build(*widths: int, seed: int = 0) -> nn.Module:
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        return _redrawn(nn.Sequential(*layers[:-1]).double(), seed)

    return build


@pytest.fixture
def build_conv() -> BuildNet:
    """Build a small convolutional network with GroupNorm for 1x6x6 images and 3 classes, in float32."""

    def build(seed: int = 0) -> nn.Module:
        features = [nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()]
        return _redrawn(nn.Sequential(*features, nn.Linear(16, 3)), seed)

    return build


@pytest.fixture
def make_blobs() -> MakeBlobs:
    """Draw points around one centre per class, in float64."""

    def make(num_examples: int, *, dims: int = 4, classes: int = 3, seed: int = 0) -> Examples:
        generator = torch_generator(seed, "test data")
        centers = 2.0 * torch.eye(max(classes, dims), dtype=torch.float64)[:classes, :dims]
        y = torch.arange(num_examples) % classes
        noise = torch.randn((num_examples, dims), generator=generator, dtype=torch.float64)
        return TensorExamples(centers[y] + noise, y)

    return make


@pytest.fixture
def assert_seeded() -> Callable[[Callable[[torch.Generator], nn.Module]], None]:
    """Check a function of a generator: same seed repeats, another differs, the global seed has no effect."""

    def check(run: Callable[[torch.Generator], nn.Module]) -> None:
        torch.default_generator.manual_seed(1)
        first = flat_parameters(run(torch_generator(0, "run")))
        torch.default_generator.manual_seed(2)
        assert torch.equal(first, flat_parameters(run(torch_generator(0, "run"))))
        assert not torch.equal(first, flat_parameters(run(torch_generator(1, "run"))))

    return check

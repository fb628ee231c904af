import copy

import pytest
import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from app.config.settings import ModelSettings
from app.models.built_in import build_model
from strategies.core.errors import BadInput
from strategies.core.seeds import torch_generator
from tests.fresh_starts import FreshStarts

IMAGES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
MODELS = ["linear", "mlp", "cnn", "resnet18"]
SMALL = {"linear": (6,), "mlp": (6,), "cnn": (1, 8, 8), "resnet18": (1, 8, 8)}


def model(name: str, shape: tuple[int, ...], num_outputs: int = 10, seed: int = 0, **sizes: int) -> nn.Module:
    return build_model(ModelSettings(name=name, **sizes), shape, num_outputs, seed)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def inputs(shape: tuple[int, ...], n: int = 3) -> torch.Tensor:
    return torch.rand(n, *shape, generator=torch_generator(5))


def test_mlp_has_the_parameters_of_its_layers() -> None:
    """6 → 4 → 4 → 3 with weights and biases, and two norms with a scale and a shift per unit."""
    expected = (6 * 4 + 4) + 2 * 4 + (4 * 4 + 4) + 2 * 4 + (4 * 3 + 3)

    assert count(model("mlp", (2, 3), num_outputs=3, hidden=4)) == expected


def test_linear_is_one_layer() -> None:
    """Six inputs and three outputs, with a bias each; the outputs are linear in the weights."""
    assert count(model("linear", (2, 3), num_outputs=3)) == 6 * 3 + 3


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 32), (3, 9)])
def test_cnn_has_the_parameters_of_its_layers(channels: int, side: int) -> None:
    """3×3 convolutions to w and 2w channels, each pooled by 2; (side // 4)² · 2w → h → classes; norms."""
    w, h, classes = 16, 24, 7
    convolutions = (9 * channels * w + w) + (9 * w * 2 * w + 2 * w)
    linear = ((side // 4) ** 2 * 2 * w * h + h) + (h * classes + classes)
    norms = 2 * w + 2 * 2 * w + 2 * h

    built = model("cnn", (channels, side, side), classes, width=w, hidden=h)

    assert count(built) == convolutions + linear + norms


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", IMAGES)
def test_logits_have_one_column_per_class(name: str, shape: tuple[int, ...]) -> None:
    assert model(name, shape, num_outputs=7)(inputs(shape)).shape == (3, 7)


@pytest.mark.parametrize("width", [1, 3, 12, 32])
def test_cnn_takes_any_width(width: int) -> None:
    assert model("cnn", (1, 8, 8), width=width)(inputs((1, 8, 8))).isfinite().all()


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 5, 11)])
def test_cnn_takes_the_smallest_and_uneven_images(shape: tuple[int, ...]) -> None:
    assert model("cnn", shape)(inputs(shape)).shape == (3, 10)


def test_mlp_takes_tables() -> None:
    assert model("mlp", (13,), num_outputs=2)(inputs((13,))).shape == (3, 2)


def test_memory_order_of_images_does_not_change_the_result() -> None:
    built, x = model("cnn", (3, 32, 32)), inputs((3, 32, 32))

    torch.testing.assert_close(built(x.contiguous(memory_format=torch.channels_last)), built(x))


@pytest.mark.parametrize("name", MODELS)
def test_an_example_is_classified_the_same_in_any_batch_and_mode(name: str) -> None:
    """What BatchNorm would break."""
    built, x = model(name, SMALL[name]), inputs(SMALL[name], n=4)
    together = built(x)

    torch.testing.assert_close(built(x[:1]), together[:1])
    torch.testing.assert_close(built.eval()(x), together)


@pytest.mark.parametrize("name", MODELS)
def test_state_is_parameters_alone_contiguous_and_float(name: str) -> None:
    built = model(name, SMALL[name])

    assert set(built.state_dict()) == {key for key, _ in built.named_parameters()}
    for value in built.state_dict().values():
        assert value.is_contiguous()
        assert value.dtype == torch.float32


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_default_step_size_learns(name: str) -> None:
    """SGD at the run config's defaults, 0.1 with momentum 0.9; a bright corner decides the class."""
    shape = (3, 32, 32)
    built, generator = model(name, shape, num_outputs=2), torch_generator(1)
    x, y = torch.rand(64, *shape, generator=generator) / 2, torch.arange(64) % 2
    x[y == 1, :, :8, :8] += 0.5
    optimizer = torch.optim.SGD(built.parameters(), 0.1, momentum=0.9)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(built(x), y).backward()
        optimizer.step()

    assert (built(x).argmax(1) == y).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_seed_decides_the_parameters(name: str) -> None:
    def flat(seed: int) -> torch.Tensor:
        return nn.utils.parameters_to_vector(model(name, SMALL[name], seed=seed).parameters())

    assert torch.equal(flat(1), flat(1))
    assert not torch.equal(flat(1), flat(2))


@pytest.mark.parametrize("name", MODELS)
def test_the_global_generator_is_neither_used_nor_changed(name: str) -> None:
    before = torch.get_rng_state()
    first = model(name, SMALL[name]).state_dict()
    assert torch.equal(torch.get_rng_state(), before)

    torch.rand(1)
    second = model(name, SMALL[name]).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@pytest.mark.parametrize("name", MODELS)
def test_opacus_takes_the_models(name: str) -> None:
    built = model(name, SMALL[name])
    wrapped = GradSampleModule(copy.deepcopy(built))
    nn.functional.cross_entropy(wrapped(inputs(SMALL[name])), torch.tensor([0, 1, 2])).backward()

    assert ModuleValidator.validate(built, strict=False) == []
    assert all(parameter.grad_sample.shape[0] == 3 for parameter in wrapped.parameters())


def test_clients_can_be_stacked_for_vmap() -> None:
    """Many small clients at once: the gradients of stacked models are those of each alone."""
    models = [model("cnn", (1, 8, 8), seed=seed) for seed in (1, 2)]
    x = inputs((1, 8, 8), n=2 * 3).reshape(2, 3, 1, 8, 8)

    def loss(parameters: dict[str, torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
        return functional_call(models[0], parameters, (batch,)).square().sum()

    stacked = vmap(grad(loss))(stack_module_state(models)[0], x)

    for i, alone in enumerate(models):
        alone(x[i]).square().sum().backward()
        for key, parameter in alone.named_parameters():
            torch.testing.assert_close(stacked[key][i], parameter.grad, rtol=1e-3, atol=1e-4)


def test_importing_costs_no_torchvision(fresh_starts: FreshStarts) -> None:
    fresh_starts.run("import sys, app.models.built_in; assert 'torchvision' not in sys.modules")


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
@pytest.mark.parametrize("shape", [(20,), (8, 8), (1, 3, 8), (1, 8, 3)])
def test_what_is_no_image_or_too_small_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        BadInput, match=rf"^model\.name: '{name}' takes images .* at least 4×4 .*'mlp' takes$"
    ):
        model(name, shape)


def test_a_model_that_ignored_its_input_would_be_noticed() -> None:
    """Guards the shape tests: different inputs give different logits."""
    built, x = model("cnn", (1, 8, 8)), inputs((1, 8, 8))

    assert not torch.allclose(built(x)[0], built(x)[1])

"""Samplers: where Opacus' own are right the same gradients, and where they are not, those of autograd."""

from collections.abc import Callable

import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn

from strategies.layers.privacy.samplers import GRAD_SAMPLERS, by_functorch
from tests.strategies.layers.privacy.private_models import TEXT, WithParameter, numbers

IMAGES = numbers(4, 4, 6, 7)
LAST = IMAGES.to(memory_format=torch.channels_last)


def one_by_one(layer: nn.Module, x: Tensor, back: Tensor) -> dict[nn.Parameter, Tensor]:
    parameters = list(layer.parameters())
    found = [
        torch.autograd.grad((layer(one[None])[0] * weight).sum(), parameters)
        for one, weight in zip(x, back, strict=True)
    ]
    return {p: torch.stack(each) for p, each in zip(parameters, zip(*found, strict=True), strict=True)}


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.Conv2d(4, 3, (2, 3), dilation=2, bias=False),
        nn.Conv1d(6, 4, 3, padding=2),
        nn.LayerNorm(7),
        nn.LayerNorm((6, 7)),
    ],
)
def test_where_opacus_is_right_ours_are_the_same(layer: nn.Module) -> None:
    x = IMAGES[:, 0] if isinstance(layer, nn.Conv1d) else IMAGES
    back = numbers(*layer(x).shape, seed=1)
    ours = GRAD_SAMPLERS[type(layer)](layer, [x], back)
    theirs = GradSampleModule.GRAD_SAMPLERS[type(layer)](layer, [x], back)
    assert set(ours) == set(theirs)
    for parameter, gradients in theirs.items():
        torch.testing.assert_close(ours[parameter], gradients, rtol=1e-4, atol=1e-5)


WRONG: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "channels last": (lambda: nn.Conv2d(4, 3, 3, padding=1), LAST),
    "reflected padding": (lambda: nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect"), IMAGES),
    "padding of an embedding": (lambda: nn.Embedding(7, 3, padding_idx=1), TEXT),
}


@pytest.mark.parametrize("name", WRONG)
def test_where_opacus_is_wrong_ours_are_right(name: str) -> None:
    layer, x = WRONG[name][0](), WRONG[name][1]
    back = numbers(*layer(x).shape, seed=1)
    if name == "channels last":
        back = back.to(memory_format=torch.channels_last)
    expected = one_by_one(layer, x, back)
    ours = GRAD_SAMPLERS[type(layer)](layer, [x], back)
    theirs = GradSampleModule.GRAD_SAMPLERS[type(layer)](layer, [x], back)
    for parameter, gradients in expected.items():
        torch.testing.assert_close(ours[parameter], gradients, rtol=1e-4, atol=1e-5)
    assert not all(torch.allclose(theirs[p], gradients, atol=1e-3) for p, gradients in expected.items())


def test_functorch_runs_a_layer_of_any_kind_and_all_in_it_again() -> None:
    layer, x = WithParameter(), numbers(4, 5, 8)
    layer.head.bias.requires_grad_(requires_grad=False)
    back = numbers(4, 5, 3, seed=1)
    found = by_functorch(layer, [x], {}, back)
    assert set(found) == {layer.place, layer.head.weight}
    layer.head.bias.requires_grad_()
    for parameter, gradients in one_by_one(layer, x, back).items():
        if parameter in found:
            torch.testing.assert_close(found[parameter], gradients, rtol=1e-4, atol=1e-5)

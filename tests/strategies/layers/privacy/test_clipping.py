"""The clipped sum from one backward pass: by hand, at the limits, against Opacus, and what it refuses."""

from collections.abc import Callable

import pytest
import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import Tensor, nn
from torch.nn import functional

from app.config.settings import ModelSettings
from app.models.built_in import build_model
from strategies.core.errors import BadInput
from strategies.layers.privacy.clipping import OnePass, accounted
from tests.strategies.layers.privacy.private_models import SQUARES, WithParameter, numbers, slow_sum


def losses_of(model: nn.Module, x: Tensor) -> Tensor:
    return SQUARES.losses(model(x), x)


def clipped_sum(model: nn.Module, clip_norm: float, losses: Callable[[], Tensor]) -> list[Tensor]:
    module = OnePass(model, clip_norm)
    try:
        module.take_norms(losses())
        module.put_sums(module.get_clipping_coef())
    finally:
        module.cleanup()  # type: ignore[no-untyped-call]
    return [p.grad for p in model.parameters() if p.grad is not None]


def fast_sum(model: nn.Module, x: Tensor, clip_norm: float) -> list[Tensor]:
    return clipped_sum(model, clip_norm, lambda: losses_of(model, x))


class Reshaped(nn.Module):
    """Makes two rows of an example of length 8."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 4)


class Doubled(nn.Module):
    """Doubles what a layer has read already."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        x *= 2
        return out


class Pair(nn.Module):
    """A layer of its own parameter that gives two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.weight, x


def test_two_examples_by_hand() -> None:
    """Loss (wx)² with w = 1: gradients 2x² = 2 and 0.02; clipped at 1 and as it is, 1.02."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    (gradient,) = fast_sum(model, torch.tensor([[1.0], [0.1]]), 1.0)
    assert gradient.item() == pytest.approx(1.02, abs=1e-5)


def test_infinite_clip_norm_is_the_gradient_of_the_sum() -> None:
    model, x = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), numbers(6, 4)
    fast = fast_sum(model, x, float("inf"))
    plain = torch.autograd.grad(losses_of(model, x).sum(), list(model.parameters()))
    torch.testing.assert_close(fast, list(plain), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(fast_sum(model, x, 0.5)[0], plain[0])


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@pytest.mark.parametrize("clip_norm", [0.05, 0.5, 1e4])
def test_it_equals_the_two_passes_of_opacus(clip_norm: float) -> None:
    """On the mlp, for which Opacus by itself is right."""
    model = build_model(ModelSettings(name="mlp", hidden=16), (1, 8, 8), 3, seed=0)
    x, y = numbers(10, 1, 8, 8), torch.arange(10) % 3
    ours = clipped_sum(model, clip_norm, lambda: functional.cross_entropy(model(x), y, reduction="none"))
    model.zero_grad()
    module = GradSampleModuleFastGradientClipping(model, max_grad_norm=clip_norm)
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(model.parameters()),
        noise_multiplier=0.0,
        max_grad_norm=clip_norm,
        expected_batch_size=1,
    )
    loss = DPLossFastGradientClipping(module, optimizer, nn.CrossEntropyLoss())(module(x), y)
    loss.backward()  # type: ignore[no-untyped-call]
    theirs = [p.grad for p in model.parameters() if p.grad is not None]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_layers_that_account_for_all_parameters() -> None:
    """One that nobody has a sampler for accounts for what is in it, too."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(WithParameter(), nn.ReLU()), nn.Linear(3, 2))
    model[0].requires_grad_(requires_grad=False)
    assert [name for name, _ in accounted(model)] == ["1.0", "2"]


@pytest.mark.parametrize(
    ("build", "x", "reason"),
    [
        (Doubled, numbers(3, 4), r"the input of layer 'layer' \(Linear\) is changed in place"),
        (
            lambda: nn.Sequential(Reshaped(), nn.Linear(4, 4), nn.Unflatten(0, (3, 2))),
            numbers(3, 8),
            r"layer '1' \(Linear\) does not see the examples one by one",
        ),
        (lambda: nn.Linear(3, 3), numbers(3), r"layer '' \(Linear\) does not see the examples one by one"),
        (Pair, numbers(3, 4), r"layer '' \(Pair\) takes or gives something else than tensors"),
    ],
)
def test_what_cannot_be_clipped_is_refused(build: Callable[[], nn.Module], x: Tensor, reason: str) -> None:
    model = build()
    with pytest.raises(BadInput, match=rf"model\.name: cannot be trained .*{reason}"):
        fast_sum(model, x.clone(), 1.0)
    assert not any(layer._forward_hooks for layer in model.modules())


def test_a_forward_pass_without_gradients_is_not_recorded() -> None:
    model, x = nn.Linear(4, 2), numbers(3, 4)

    def losses() -> Tensor:
        with torch.no_grad():
            model(x)
        return losses_of(model, x)

    torch.testing.assert_close(clipped_sum(model, 0.5, losses), slow_sum(model, x, 0.5), rtol=1e-5, atol=1e-5)

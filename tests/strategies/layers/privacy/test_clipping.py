"""The clipped sum from one backward pass, against one example at a time and against Opacus."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings, strategies as st
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import Tensor, nn
from torch.nn import functional

from app.config.settings import ModelSettings
from app.models.built_in import ChannelsLast, build_model
from strategies.core.errors import BadInput
from strategies.core.seeds import torch_generator
from strategies.layers.privacy import clipping
from strategies.layers.privacy.clipping import ClippedSum, patches


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch_generator(seed, "drawn"))


def losses_of(model: nn.Module, x: Tensor) -> Tensor:
    losses: Tensor = model(x).square().flatten(1).sum(dim=1)
    return losses


def slow_sum(model: nn.Module, x: Tensor, clip_norm: float) -> list[Tensor]:
    """Return Σ_i g_i min(1, C/‖g_i‖) by parameter, one example at a time."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in parameters]
    for one in x:
        gradients = torch.autograd.grad(losses_of(model, one[None]).sum(), parameters)
        norm = float(torch.cat([g.flatten() for g in gradients]).norm())
        for entry, gradient in zip(total, gradients, strict=True):
            entry += gradient * min(1.0, clip_norm / norm)
    return total


def fast_sum(model: nn.Module, x: Tensor, clip_norm: float) -> list[Tensor]:
    with ClippedSum(model, clip_norm) as clipped:
        clipped.backward(losses_of(model, x))
    return [p.grad for p in model.parameters() if p.grad is not None]


def assert_same(model: nn.Module, x: Tensor, clip_norm: float = 0.5) -> None:
    fast = fast_sum(model, x, clip_norm)
    torch.testing.assert_close(fast, slow_sum(model, x, clip_norm), rtol=1e-5, atol=1e-5)
    assert float(torch.cat([g.flatten() for g in fast]).norm()) > 0


class Twice(nn.Module):
    """A layer that is used two times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(torch.tanh(self.layer(x)))
        return out


class Reshaped(nn.Module):
    """Makes two rows of an example of length 8."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 4)


def test_two_examples_by_hand() -> None:
    """Loss (wx)² with w = 1: gradients 2x² = 2 and 0.02; clipped at 1 and as it is, 1.02."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    (gradient,) = fast_sum(model, torch.tensor([[1.0], [0.1]]), 1.0)
    assert gradient.item() == pytest.approx(1.02, abs=1e-5)


CONVOLUTIONS: dict[str, Callable[[], nn.Module]] = {
    "channels-first": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 3, 3)),
    "channels-last": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), ChannelsLast(), nn.Tanh(), nn.Conv2d(4, 3, 3)),
    "memory format": lambda: CONVOLUTIONS["channels-first"]().to(memory_format=torch.channels_last),
    "strided": lambda: nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), bias=False),
    "group norm": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(2)),
}


@pytest.mark.parametrize("kept_entries", [2**23, 100])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_in_any_layout(name: str, kept_entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the examples' gradients held until they are summed, and formed for some examples at a time."""
    monkeypatch.setattr(clipping, "_KEPT_ENTRIES", kept_entries)
    assert_same(CONVOLUTIONS[name](), drawn(5, 2, 8, 8))


@pytest.mark.parametrize("kept_entries", [2**23, 20])
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_linear_layers_on_vectors_sequences_and_more(
    shape: tuple[int, ...], kept_entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clipping, "_KEPT_ENTRIES", kept_entries)
    assert_same(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2, bias=False)), drawn(6, *shape))


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_patches_are_those_of_unfold(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> None:
    layer = nn.Conv2d(3, 1, kernel, stride, padding, dilation)
    x = drawn(2, 3, 7, 6)
    unfolded = functional.unfold(x, kernel, dilation, padding, stride).unflatten(1, (3, -1))  # [n, c, k², l]
    assert patches(x, layer).equal(unfolded.permute(0, 3, 2, 1).flatten(2))


def test_infinite_clip_norm_is_the_gradient_of_the_sum() -> None:
    model, x = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), drawn(6, 4)
    fast = fast_sum(model, x, float("inf"))
    plain = torch.autograd.grad(losses_of(model, x).sum(), list(model.parameters()))
    torch.testing.assert_close(fast, list(plain), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(fast_sum(model, x, 0.5)[0], plain[0])


@pytest.mark.parametrize("frozen", [(0,), (2,), (0, 1), (1, 3), (0, 1, 2)])
def test_frozen_parameters_count_for_nothing(frozen: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 3, 3))
    parameters = list(model.parameters())
    for index in frozen:
        parameters[index].requires_grad_(requires_grad=False)
    assert_same(model, drawn(4, 2, 6, 6))
    assert all(parameters[index].grad is None for index in frozen)


def test_a_layer_that_the_loss_does_not_need_has_no_gradient() -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 2), "unused": nn.Linear(4, 2)})
    with ClippedSum(model, 1.0) as clipped:
        model["unused"](drawn(3, 4))
        clipped.backward(losses_of(model["used"], drawn(3, 4)))
    assert [float(p.grad.norm()) > 0 for p in model.parameters() if p.grad is not None] == [True] * 2 + [
        False
    ] * 2


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@pytest.mark.parametrize("clip_norm", [0.05, 0.5, 1e4])
def test_it_equals_the_two_passes_of_opacus(clip_norm: float) -> None:
    """On the mlp, for which Opacus is right."""
    model = build_model(ModelSettings(name="mlp", hidden=16), (1, 8, 8), 3, seed=0)
    x, y = drawn(10, 1, 8, 8), torch.arange(10) % 3
    with ClippedSum(model, clip_norm) as clipped:
        clipped.backward(functional.cross_entropy(model(x), y, reduction="none"))
    ours = [p.grad for p in model.parameters()]
    module = GradSampleModuleFastGradientClipping(model, max_grad_norm=clip_norm)
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(model.parameters()),
        noise_multiplier=0.0,
        max_grad_norm=clip_norm,
        expected_batch_size=1,
    )
    loss = DPLossFastGradientClipping(module, optimizer, nn.CrossEntropyLoss())(module(x), y)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ours, [p.grad for p in model.parameters()], rtol=1e-5, atol=1e-5)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (tied, "layer '1' shares parameters with another"),
        (lambda: nn.Sequential(nn.LayerNorm(4)), r"no norms of single examples for layer '0' \(LayerNorm\)"),
        (lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), "grouped or specially padded .* such as '0'"),
        (lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding="same")), "grouped or specially padded"),
        (Twice, "layer 'layer' is used more than once in a forward pass"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)), "layer '0' is changed in place"),
        (
            lambda: nn.Sequential(Reshaped(), nn.Linear(4, 4), nn.Unflatten(0, (3, 2))),
            "layer '1' does not see the examples one by one",
        ),
    ],
)
def test_what_cannot_be_clipped_is_refused(build: Callable[[], nn.Module], reason: str) -> None:
    model = build()
    x = drawn(3, 8) if isinstance(next(model.children()), Reshaped) else drawn(3, 4)
    with pytest.raises(BadInput, match=rf"model\.name: cannot be trained .*{reason}"):
        fast_sum(model, x, 1.0)
    assert not any(layer._forward_hooks for layer in model.modules())


def test_a_forward_pass_without_gradients_is_not_recorded() -> None:
    model, x = nn.Linear(4, 2), drawn(3, 4)
    with ClippedSum(model, 0.5) as clipped:
        with torch.no_grad():
            model(x)
        clipped.backward(losses_of(model, x))
    assert model.weight.grad is not None
    torch.testing.assert_close(model.weight.grad, slow_sum(model, x, 0.5)[0], rtol=1e-5, atol=1e-5)

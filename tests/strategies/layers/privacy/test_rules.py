"""Rules for one pass: norms and sums of gradients that are held, and of those that are not."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn
from torch.nn import functional

from strategies.layers.privacy import rules
from strategies.layers.privacy.rules import (
    NORM_SAMPLERS,
    merged,
    patch_products,
    patches,
    rule_of,
    shifted_products,
)
from strategies.layers.privacy.samplers import GRAD_SAMPLERS
from tests.strategies.layers.privacy.private_models import TEXT, numbers

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
SMALL = st.tuples(st.integers(1, 2), st.integers(1, 2))
PADDING = st.tuples(st.integers(0, 2), st.integers(0, 2))


@settings(max_examples=25, deadline=None)
@given(PAIR, SMALL, PADDING, SMALL)
def test_patches_are_those_of_unfold(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> None:
    layer = nn.Conv2d(3, 1, kernel, stride, padding, dilation)
    x = numbers(2, 3, 7, 6)
    unfolded = functional.unfold(x, kernel, dilation, padding, stride).unflatten(1, (3, -1))  # [n, c, k², l]
    assert patches(x, layer).equal(unfolded.permute(0, 3, 2, 1).flatten(2))


@settings(max_examples=25, deadline=None)
@given(PAIR, PADDING, SMALL)
def test_products_of_shifted_inputs_are_those_of_patches(
    kernel: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> None:
    layer = nn.Conv2d(3, 4, kernel, 1, padding, dilation)
    x = numbers(2, 3, 7, 6)
    back = numbers(*layer(x).shape, seed=1)
    torch.testing.assert_close(
        shifted_products(x, layer, back), patch_products(x, layer, back), rtol=1e-4, atol=1e-5
    )


LAYERS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "linear": (lambda: nn.Linear(8, 3), numbers(4, 8)),
    "sequences": (lambda: nn.Linear(8, 3), numbers(4, 5, 8)),
    "convolution": (lambda: nn.Conv2d(2, 3, (3, 2), (2, 1), (1, 2), (1, 2)), numbers(4, 2, 7, 6)),
    "many channels": (lambda: nn.Conv2d(9, 3, 3, padding=1), numbers(4, 9, 5, 6)),
    "norm": (lambda: nn.GroupNorm(2, 4), numbers(4, 4, 5)),
    "embedding": (lambda: nn.Embedding(7, 3, padding_idx=2), TEXT),
}


@pytest.mark.parametrize("kept_entries", [2**23, 20])
@pytest.mark.parametrize("name", LAYERS)
def test_norms_and_sums_are_those_of_the_sampled_gradients(
    name: str, kept_entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With gradients held until they are summed, and formed for some examples at a time."""
    monkeypatch.setattr(rules, "_KEPT_ENTRIES", kept_entries)
    layer, x = LAYERS[name][0](), LAYERS[name][1]
    back, weights = numbers(*layer(x).shape, seed=1), torch.tensor([0.5, 0.0, 2.0, 1.0])
    sampled, rule = GRAD_SAMPLERS[type(layer)](layer, [x], back), rule_of(layer)
    assert rule is not None
    shares = {share.parameter: share for share in rule(layer, x, back)}
    norms = NORM_SAMPLERS[type(layer)](layer, [x], back)
    assert set(shares) == set(sampled) == set(norms) == set(layer.parameters())
    for parameter, gradients in sampled.items():
        expected = gradients.flatten(1).norm(dim=1)
        torch.testing.assert_close(shares[parameter].norms, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norms[parameter], expected, rtol=1e-4, atol=1e-5)
        total = torch.tensordot(weights, gradients, 1)
        torch.testing.assert_close(shares[parameter].total(weights), total, rtol=1e-4, atol=1e-5)


def test_the_norm_does_not_cancel_where_an_examples_vectors_nearly_do() -> None:
    """g = b (a − a′), a′ = (1 + 2⁻¹²) a, exact in float32: ‖g‖ = 2⁻¹² ‖a‖ ‖b‖, which Gram matrices lose."""
    layer, a, b = nn.Linear(3, 2, bias=False), torch.tensor([3.0, 4.0, 12.0]), torch.tensor([0.75, 1.0])
    given_twice = torch.stack([a, (1 + 2**-12) * a])[None]
    back = torch.stack([b, -b])[None]
    norm = NORM_SAMPLERS[nn.Linear](layer, [given_twice], back)[layer.weight]
    assert norm.item() == pytest.approx(2**-12 * 13 * 1.25, rel=1e-6)


def test_turns_of_a_linear_layer_are_a_longer_sequence() -> None:
    first, second = (numbers(3, 8), numbers(3, 2)), (numbers(3, 5, 8), numbers(3, 5, 2))
    inputs, back = merged([first, second])
    assert inputs.equal(torch.cat([first[0][:, None], second[0]], dim=1))
    assert back.equal(torch.cat([first[1][:, None], second[1]], dim=1))


@pytest.mark.parametrize(
    "layer",
    [nn.LayerNorm(4), nn.Conv1d(2, 2, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, padding="same")],
)
def test_other_layers_have_no_rule(layer: nn.Module) -> None:
    assert rule_of(layer) is None

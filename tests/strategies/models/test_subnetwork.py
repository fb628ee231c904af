"""Sub-networks: which entries they have, what they compute, and how their neurons are named."""

import copy
from typing import Literal

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

from app.config.settings import ModelSettings
from app.models.built_in import build_model
from strategies.core.errors import BadInput
from strategies.core.seeds import torch_generator
from strategies.core.wire import Layout
from strategies.models.neurons import Group, hidden_groups, neuron_scores
from strategies.models.subnetwork import (
    Kept,
    block_index,
    keep_count,
    pack_kept,
    subnetwork,
    top_neurons,
    unpack_kept,
)

Name = Literal["mlp", "cnn", "resnet18"]
NAMES: tuple[Name, ...] = ("mlp", "cnn", "resnet18")
TWO = (Group("a", 5, ()), Group("b", 3, ()))


def model_of(name: Name) -> nn.Module:
    """Return a model whose norms do something."""
    model = build_model(ModelSettings(name=name, width=8, hidden=12), (1, 8, 8), 3, seed=1)
    generator = torch_generator(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def some_kept(groups: tuple[Group, ...], keep: float = 0.4) -> Kept:
    generator = torch_generator(7)
    return tuple(
        tuple(sorted(torch.randperm(g.size, generator=generator)[: keep_count(keep, g.size)].tolist()))
        for g in groups
    )


def flat(model: nn.Module) -> Tensor:
    return Layout.of(model.state_dict()).flatten(model.state_dict())


def test_by_hand() -> None:
    """2 → 3 → 2 with neurons 0 and 2: rows 0, 2 of the first layer, columns 0, 2 of the next.

    Flat: first weight 0–5, first bias 6–8, second weight 9–14, second bias 15–16.
    """
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    groups = hidden_groups(model)
    index, layout = block_index(Layout.of(model.state_dict()), groups, ((0, 2),))
    assert index.tolist() == [0, 1, 4, 5, 6, 8, 9, 11, 12, 14, 15, 16]
    assert layout.shapes == ((2, 2), (2,), (2, 2), (2,))


def test_channels_lead_into_the_units_of_their_own_pixels() -> None:
    """2 channels of 2×2 pixels, flattened: channel 1 is columns 4 to 7."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(8, 1, bias=False))
    index, _ = block_index(Layout.of(model.state_dict()), hidden_groups(model), ((1,),))
    assert index.tolist() == [1, 2 + 4, 2 + 5, 2 + 6, 2 + 7]


@pytest.mark.parametrize("name", NAMES)
def test_it_computes_what_the_full_network_does_with_the_others_at_zero(name: Name) -> None:
    """The other neurons are silenced: their weights, norms and what leads on from them are zero."""
    model = model_of(name)
    layout, groups = Layout.of(model.state_dict()), hidden_groups(model)
    kept = some_kept(groups)
    small, silenced = subnetwork(model, groups, kept), copy.deepcopy(model)
    index, _ = block_index(layout, groups, kept)
    mask = torch.zeros(layout.size)
    mask[index] = 1
    state = silenced.state_dict()
    with torch.no_grad():
        for key, part in layout.unflatten(flat(model) * mask).items():
            state[key].copy_(part)
    x = torch.rand(4, 1, 8, 8, generator=torch_generator(0))
    torch.testing.assert_close(small(x), silenced(x), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(small(x), model(x), atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_its_entries_are_those_of_the_block(name: Name) -> None:
    model = model_of(name)
    layout, groups = Layout.of(model.state_dict()), hidden_groups(model)
    kept = some_kept(groups)
    index, small = block_index(layout, groups, kept)
    part = subnetwork(model, groups, kept)
    assert Layout.of(part.state_dict()) == small
    assert flat(part).equal(flat(model)[index])
    assert len(set(index.tolist())) == small.size < layout.size


@pytest.mark.parametrize("name", NAMES)
def test_with_everything_kept_it_is_the_model(name: Name) -> None:
    model = model_of(name)
    groups = hidden_groups(model)
    kept = tuple(tuple(range(group.size)) for group in groups)
    index, layout = block_index(Layout.of(model.state_dict()), groups, kept)
    assert index.tolist() == list(range(layout.size))
    whole, x = subnetwork(model, groups, kept), torch.rand(2, 1, 8, 8, generator=torch_generator(0))
    assert whole(x).equal(model(x))
    assert [type(layer) for layer in whole.modules()] == [type(layer) for layer in model.modules()]


def test_inputs_and_outputs_stay_whole_and_a_stream_is_cut_alike_all_along() -> None:
    """⌈0.4 · 64⌉ = 26, ⌈0.4 · 128⌉ = 52, ⌈0.4 · 512⌉ = 205 channels, inside the blocks and past them."""
    model = model_of("resnet18")
    groups = hidden_groups(model)
    inner = [f"layer{i}.{j}.conv1" for i in range(1, 5) for j in range(2)]
    streams = ["conv1", *(f"layer{i}.0.downsample.0" for i in (2, 3, 4))]
    assert [group.name for group in groups] == inner + streams
    shapes = dict(zip(*_names_and_shapes(model, groups), strict=True))
    assert shapes["conv1.weight"] == (26, 1, 3, 3)
    assert shapes["layer1.0.conv1.weight"] == shapes["layer1.1.conv2.weight"] == (26, 26, 3, 3)
    assert shapes["layer2.0.conv1.weight"] == (52, 26, 3, 3)
    assert shapes["layer2.0.downsample.0.weight"] == (52, 26, 1, 1)
    assert shapes["layer2.1.bn2.weight"] == shapes["layer2.0.downsample.1.bias"] == (52,)
    assert shapes["fc.weight"] == (3, 205)
    assert shapes["fc.bias"] == (3,)


def test_a_channel_of_a_stream_scores_by_all_layers_that_write_to_it() -> None:
    """With every entry's score 1, the second stage's: 3×3 of 128 inner channels twice, and 64 projected."""
    model = model_of("resnet18")
    scores = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    second = next(group for group in hidden_groups(model) if group.name == "layer2.0.downsample.0")
    assert neuron_scores(scores, second).tolist() == [64 + 2 * 9 * 128] * 128


def _names_and_shapes(
    model: nn.Module, groups: tuple[Group, ...]
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    layout = block_index(Layout.of(model.state_dict()), groups, some_kept(groups))[1]
    return layout.names, layout.shapes


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 4), min_size=1), st.sets(st.integers(0, 2), min_size=1))
def test_positions_are_read_back(first: set[int], second: set[int]) -> None:
    kept = (tuple(sorted(first)), tuple(sorted(second)))
    assert unpack_kept(TWO, pack_kept(TWO, kept)) == kept


def test_positions_take_the_fewer_bytes() -> None:
    """Of 1,000 neurons: 20 as indices are 40 bytes, 500 as bits are 125."""
    groups = (Group("a", 1000, ()),)
    assert len(pack_kept(groups, (tuple(range(0, 40, 2)),))) == 1 + 40
    assert len(pack_kept(groups, (tuple(range(500)),))) == 1 + 125


MALFORMED = [b"", b"\x00", b"\x00\xff\xff", b"\x00\x1f", b"\x01\x09\x00\x00\x00", b"\x02\x01"]


@pytest.mark.parametrize("packed", MALFORMED)
def test_positions_of_another_model_are_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match="positions of neurons"):
        unpack_kept(TWO, packed)


def test_scores_are_summed_over_what_leads_into_a_neuron() -> None:
    """Rows (1, 2), (3, 4), (0, 0) and biases 10, 0, 5: 13, 7, 5; the two best are 0 and 1."""
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    scores = {"0.weight": weights, "0.bias": torch.tensor([10.0, 0, 5])}
    summed = neuron_scores(scores, hidden_groups(model)[0])
    assert summed.tolist() == [13, 7, 5]
    assert top_neurons(summed, 2) == (0, 1)
    assert top_neurons(torch.zeros(4), 2) == (0, 1)


def test_what_cannot_be_pruned_is_refused() -> None:
    with pytest.raises(BadInput, match=r"model\.name: Linear has no hidden layer"):
        hidden_groups(nn.Linear(2, 2))
    with pytest.raises(BadInput, match=r"model\.name: layer '1' \(LSTM\) cannot be pruned"):
        hidden_groups(nn.Sequential(nn.Linear(2, 3), nn.LSTM(3, 3)))

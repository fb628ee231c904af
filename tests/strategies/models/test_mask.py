"""Pruned weights stay zero whatever trains the model, and their mask travels small."""

import copy
import zlib

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.client.training import local_train
from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator
from strategies.core.wire import Layout
from strategies.models.mask import flat_mask_of, hold, masks_in, masks_of, pack, unpack

LAYOUT = Layout(("0.weight", "0.bias"), ((1, 2), (1,)))
SECOND_PRUNED = {"0.weight": torch.tensor([[True, False]])}


def line() -> nn.Sequential:
    """Return y = 2·x₁ + 3·x₂ + 1."""
    model = nn.Sequential(nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[2.0, 3.0]]))
        model[0].bias.fill_(1.0)
    return model


def net() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(1, 8), nn.ReLU(), nn.Linear(8, 3))
    generator = torch_generator(0, "net")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def data() -> Examples:
    generator = torch_generator(0, "data")
    return TensorExamples(torch.randn(40, 4, generator=generator), torch.arange(40) % 3)


def checkerboard(*shape: int) -> Tensor:
    return (torch.arange(shape[0]).unsqueeze(1) + torch.arange(shape[1])) % 2 == 0


NET_MASKS = {"0.weight": checkerboard(8, 4), "3.weight": checkerboard(3, 8)}


# by hand


def test_flat_and_by_name() -> None:
    """The second of two weights is pruned; the bias has no mask and is kept."""
    flat = flat_mask_of(SECOND_PRUNED, LAYOUT)
    assert flat.tolist() == [True, False, True]
    assert list(masks_in(flat, LAYOUT)) == ["0.weight"]
    assert masks_in(flat, LAYOUT)["0.weight"].equal(SECOND_PRUNED["0.weight"])
    assert masks_in(torch.ones(3, dtype=torch.bool), LAYOUT) == {}


def test_a_held_weight_is_zero_and_has_no_gradient() -> None:
    """At x = (1, 1) the gradient of 2x₁ + 0·x₂ + 1 in the weights is (1, 1), and (1, 0) on the mask."""
    model = hold(line(), SECOND_PRUNED)
    loss = model(torch.ones(1, 2)).sum()
    assert loss.item() == 3.0
    loss.backward()
    gradient = model.get_parameter("0.weight").grad
    assert gradient is not None
    assert gradient.tolist() == [[1.0, 0.0]]
    (again,) = torch.autograd.grad(model(torch.ones(1, 2)).sum(), [model.get_parameter("0.weight")])
    assert again.tolist() == [[1.0, 0.0]]


def test_the_state_stays_what_it_was() -> None:
    """Names, shapes and order are those that travel; the mask is known besides."""
    model = hold(line(), SECOND_PRUNED)
    assert Layout.of(model.state_dict()) == LAYOUT
    assert masks_of(model)["0.weight"].tolist() == [[True, False]]
    assert masks_of(line()) == {}


# equivalence: a step, and clearing after it


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_a_step_on_the_mask_is_a_step_and_clearing(optimizer: str) -> None:
    """The pruned weights of the other model do move, so that there is something to clear."""
    settings = TrainSettings.model_validate({"optimizer": optimizer, "weight-decay": 0.1})
    masked = hold(net(), NET_MASKS)
    local_train(masked, data(), settings, torch_generator(1), rates=[0.05])
    plain = hold(net(), NET_MASKS)
    twin = net()
    twin.load_state_dict(plain.state_dict())
    local_train(twin, data(), settings, torch_generator(1), rates=[0.05])
    for name, parameter in twin.named_parameters():
        kept = NET_MASKS.get(name, torch.ones_like(parameter, dtype=torch.bool))
        assert (parameter.detach() * kept).equal(masked.get_parameter(name).detach())
        if name in NET_MASKS:
            assert parameter.detach()[~kept].any()


# properties


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_pruned_weights_stay_zero(optimizer: str) -> None:
    model = hold(net(), NET_MASKS)
    settings = TrainSettings.model_validate({"optimizer": optimizer, "weight-decay": 0.1, "local-epochs": 3})
    local_train(model, data(), settings, torch_generator(1))
    for name, mask in NET_MASKS.items():
        assert not model.get_parameter(name)[~mask].any()
        assert model.get_parameter(name)[mask].all()


@given(st.lists(st.booleans(), max_size=100))
def test_a_mask_travels_and_comes_back(bits: list[bool]) -> None:
    mask = torch.tensor(bits, dtype=torch.bool)
    assert unpack(pack(mask), len(bits)).equal(mask)


def test_a_mask_is_small() -> None:
    """Of 100,000 scalars, 5 % kept at random: 0.29 bits of entropy each, 3.6 kB; the model has 400 kB."""
    mask = torch.rand(100_000, generator=torch_generator(0)) < 0.05
    assert 3_500 < len(pack(mask)) < 6_000


def test_holding_twice_is_holding_once() -> None:
    once, twice = hold(net(), NET_MASKS), hold(hold(net(), NET_MASKS), NET_MASKS)
    for model in (once, twice):
        local_train(model, data(), TrainSettings(), torch_generator(1))
    assert all(a.equal(b) for a, b in zip(once.parameters(), twice.parameters(), strict=True))


def test_no_mask_is_no_change() -> None:
    """Neutral: a mask that keeps everything, and none."""
    models = [net(), hold(net(), {}), hold(net(), {n: torch.ones_like(m) for n, m in NET_MASKS.items()})]
    for model in models:
        local_train(model, data(), TrainSettings(), torch_generator(1))
    plain, *others = [torch.cat([p.detach().reshape(-1) for p in m.parameters()]) for m in models]
    assert all(other.equal(plain) for other in others)


def test_a_deep_copy_has_the_masks_but_must_hold_them_anew() -> None:
    twin = copy.deepcopy(hold(line(), SECOND_PRUNED))
    twin(torch.ones(1, 2)).sum().backward()
    gradient = twin[0].weight.grad
    assert gradient is not None
    assert gradient.tolist() == [[1.0, 1.0]]
    twin.zero_grad()
    hold(twin, masks_of(twin))(torch.ones(1, 2)).sum().backward()
    gradient = twin[0].weight.grad
    assert gradient is not None
    assert gradient.tolist() == [[1.0, 0.0]]


# errors


def test_masks_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"the mask '0\.weight' has shape \(2, 1\), expected \(1, 2\)"):
        hold(line(), {"0.weight": torch.ones(2, 1, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"the mask 'head\.weight' of shape \(2,\) fits no parameter"):
        flat_mask_of({"head.weight": torch.ones(2, dtype=torch.bool)}, LAYOUT)


def test_damaged_masks() -> None:
    with pytest.raises(ValueError, match="the mask is damaged"):
        unpack(b"no mask", 8)
    with pytest.raises(ValueError, match="the mask has 1 bytes, expected 2 for 9 parameters"):
        unpack(pack(torch.ones(8, dtype=torch.bool)), 9)


def test_a_mask_that_would_fill_the_memory_is_not_unpacked() -> None:
    with pytest.raises(ValueError, match="the mask has 2 bytes, expected 1"):
        unpack(zlib.compress(bytes(10**7)), 8)

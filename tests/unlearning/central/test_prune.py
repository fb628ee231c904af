"""unlearning/central/prune.py: masks against a direct ranking, SynFlow's flow, IMP's schedule."""

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

from strategies.core.examples import Examples
from strategies.core.seeds import torch_generator
from unlearning.central.masks import Masks, flat_mask, masked, sparsity
from unlearning.central.parameters import flat_parameters
from unlearning.central.prune import (
    PruneSettings,
    imp,
    imp_schedule,
    magnitude_masks,
    omp,
    prunable,
    synflow_masks,
    synflow_scores,
    weight_of,
)
from unlearning.central.training import SgdSettings, trained

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]
Run = Callable[[torch.Generator], nn.Module]

DEEP = (8, 16, 16, 16, 16, 4)


def all_weights(model: nn.Module) -> Tensor:
    return torch.cat([weight_of(layer).reshape(-1) for layer in prunable(model).values()])


def joined(masks: Masks) -> Tensor:
    return torch.cat([mask.reshape(-1) for mask in masks.values()])


def layer_shares(masks: Masks) -> list[float]:
    return [float(mask.float().mean()) for mask in masks.values()]


# by hand


def test_magnitude_pruning_by_hand() -> None:
    """Weights 1, −3, ½ and 2; half of them go: ½ and 1."""
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -3.0], [0.5, 2.0]]))
    assert magnitude_masks(model, 0.5)["weight"].tolist() == [[False, True], [False, True]]


def test_synflow_scores_by_hand() -> None:
    """x → −3·relu(2x + 5) + 1 counts as |−3|·|2|·1 = 6, and so does |w·∂R/∂w| of either weight."""
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (2.0, 5.0, -3.0, 1.0), strict=True):
            parameter.fill_(value)
    scores = synflow_scores(model, (1,))
    assert {name: score.item() for name, score in scores.items()} == {"0.weight": 6.0, "2.weight": 6.0}


def test_the_schedule_by_hand() -> None:
    """Kept: 0.8, 0.64, 0.512, 0.4096, and then exactly 0.4."""
    assert imp_schedule(0.6, 0.2) == pytest.approx([0.2, 0.36, 0.488, 0.5904, 0.6])
    assert imp_schedule(0.2, 0.2) == [0.2]
    assert imp_schedule(0.1, 0.2) == [0.1]
    assert imp_schedule(0.0, 0.2) == []


def test_only_weights_of_layers_are_pruned(build_conv: BuildNet) -> None:
    assert list(magnitude_masks(build_conv(), 0.5)) == ["0.weight", "5.weight"]


# against the direct ranking


@given(rate=st.floats(0, 0.99), seed=st.integers(0, 50))
def test_magnitude_masks_are_a_global_top_k(rate: float, seed: int) -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    generator = torch_generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    weights = all_weights(model).abs()
    expected = torch.ones(len(weights), dtype=torch.bool)
    expected[weights.argsort()[: round(rate * len(weights))]] = False
    assert torch.equal(joined(magnitude_masks(model, rate)), expected)


def test_a_model_with_its_channels_last_is_pruned_as_any() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    assert not all(p.is_contiguous() for p in last.parameters())
    ours, theirs = magnitude_masks(last, 0.5), magnitude_masks(plain, 0.5)
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(flat_parameters(masked(last, ours)), flat_parameters(masked(plain, theirs)))


def test_imp_is_its_rounds(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    """At 36 % there are two rounds: train the early model, prune; train it again on the mask, prune."""
    early, examples = build_net(4, 8, 3), make_blobs(40)
    sgd = SgdSettings(epochs=5, learning_rate=0.3, batch_size=8)
    generator = torch_generator(0)
    first = magnitude_masks(trained(early, examples, sgd, generator), 0.2)
    second = magnitude_masks(trained(early, examples, sgd, generator, masks=first), 0.36, first)
    sparse = imp(early, examples, sgd, PruneSettings(rate=0.36), torch_generator(0))
    assert torch.equal(joined(sparse.masks), joined(second))


# properties


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.95])
def test_omp_rewinds_what_it_keeps(rate: float, build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    early = build_net(4, 8, 3)
    late = trained(early, make_blobs(60), SgdSettings(learning_rate=0.1), torch_generator(0))
    sparse = omp(late, early, rate)
    assert torch.equal(flat_parameters(sparse.model), flat_parameters(early) * flat_mask(early, sparse.masks))
    assert sparsity(sparse.masks) == pytest.approx(round(rate * 56) / 56)


def test_pruning_further_keeps_what_was_pruned(build_net: BuildNet) -> None:
    model = build_net(*DEEP)
    first = magnitude_masks(model, 0.3)
    other = magnitude_masks(build_net(*DEEP, seed=1), 0.6, first)
    assert not (joined(other) & ~joined(first)).any()
    assert sparsity(other) == pytest.approx(0.6, abs=1e-3)


def test_nothing_is_altered(build_net: BuildNet) -> None:
    model = build_net(4, 8, 3)
    before, names = flat_parameters(model), list(model.state_dict())
    omp(model, model, 0.5)
    synflow_masks(model, (4,), PruneSettings(rate=0.5, iterations=3))
    assert torch.equal(flat_parameters(model), before)
    assert list(model.state_dict()) == names


def test_synflow_conserves_flow_through_every_layer(build_net: BuildNet) -> None:
    """R is a sum over paths, each with one weight per layer, so each layer's scores sum to R."""
    sums = [float(score.sum()) for score in synflow_scores(build_net(*DEEP), (8,)).values()]
    assert sums == pytest.approx([sums[0]] * len(sums))


def test_synflow_keeps_deep_layers_connected(build_net: BuildNet) -> None:
    """One layer is a hundred times smaller; magnitude pruning at 95 % cuts it off, SynFlow does not."""
    model = build_net(*DEEP)
    with torch.no_grad():
        model.get_submodule("4").get_parameter("weight").mul_(0.01)
    masks = synflow_masks(model, (8,), PruneSettings())
    assert min(layer_shares(masks)) > 0
    assert sparsity(masks) == pytest.approx(0.95, abs=1 / 960)
    flow = synflow_scores(masked(model, masks), (8,))
    assert all(float(score.sum()) > 0 for score in flow.values())
    assert min(layer_shares(magnitude_masks(model, 0.95))) == 0


def test_synflow_needs_its_iterations(build_net: BuildNet) -> None:
    """A layer ten times wider has smaller scores per weight; pruned at one stroke at 99.5 % it is cut off.

    Pruned in a hundred steps it keeps a path, as the scores of what is left rise.
    """
    model = build_net(2, 4, 60, 60, 4, 2)

    def smallest(iterations: int) -> float:
        return min(layer_shares(synflow_masks(model, (2,), PruneSettings(rate=0.995, iterations=iterations))))

    assert smallest(1) == 0
    assert smallest(100) > 0


def test_synflow_passes_normalisation_and_biases_by(build_conv: BuildNet) -> None:
    """Other biases and other normalisation weights leave the scores as they are."""
    model, other = build_conv(), build_conv()
    with torch.no_grad():
        for name in ("0.bias", "1.weight", "1.bias", "5.bias"):
            other.get_parameter(name).add_(3.0)
    one, two = synflow_scores(model, (1, 6, 6)), synflow_scores(other, (1, 6, 6))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(score.all() for score in one.values())


@given(rate=st.floats(0.01, 0.99), round_rate=st.floats(0.05, 0.9))
def test_the_schedule_climbs_by_the_round_rate(rate: float, round_rate: float) -> None:
    schedule = [0.0, *imp_schedule(rate, round_rate)]
    assert schedule[-1] == rate
    for before, after in itertools.pairwise(schedule):
        assert 0 <= (after - before) / (1 - before) <= round_rate + 1e-6


def test_imp_rewinds_and_prunes_by_schedule(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    early, settings = build_net(4, 8, 3), PruneSettings(rate=0.6)
    sparse = imp(early, make_blobs(30), SgdSettings(epochs=2), settings, torch_generator(0))
    assert sparsity(sparse.masks) == pytest.approx(round(0.6 * 56) / 56)
    assert torch.equal(flat_parameters(sparse.model), flat_parameters(early) * flat_mask(early, sparse.masks))


def test_imp_without_pruning_is_the_early_model(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    early = build_net(4, 3)
    sparse = imp(early, make_blobs(9), SgdSettings(), PruneSettings(rate=0.0), torch_generator(0))
    assert sparse.masks == {}
    assert torch.equal(flat_parameters(sparse.model), flat_parameters(early))


def test_imp_trains_from_the_generator(
    build_net: BuildNet, make_blobs: MakeBlobs, assert_seeded: Callable[[Run], None]
) -> None:
    early, examples, settings = build_net(4, 8, 3), make_blobs(40), PruneSettings(rate=0.5)
    sgd = SgdSettings(epochs=3, learning_rate=0.5, batch_size=4)
    assert_seeded(lambda generator: imp(early, examples, sgd, settings, generator).model)


# errors


def test_pruning_less_than_is_pruned_is_refused(build_net: BuildNet) -> None:
    model = build_net(4, 3)
    with pytest.raises(ValueError, match=r"6 weights are pruned already, more than the 3 of rate 0\.25"):
        magnitude_masks(model, 0.25, magnitude_masks(model, 0.5))

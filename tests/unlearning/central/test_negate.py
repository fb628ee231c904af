"""unlearning/central/negate.py: the sign flip, and that it is its own inverse."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from strategies.client.evaluation import evaluate
from strategies.core.examples import Examples
from strategies.core.seeds import torch_generator
from unlearning.central.finetune import FinetuneSettings, finetune
from unlearning.central.negate import negate
from unlearning.central.parameters import flat_parameters, split_like

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]
Run = Callable[[torch.Generator], nn.Module]


# by hand


def test_the_first_layer_is_negated(build_net: BuildNet) -> None:
    """A 1→1→1 network of weights and biases (w, b, w', b') becomes (−w, −b, w', b')."""
    model = build_net(1, 1, 1)
    before = flat_parameters(model)
    signs = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    assert torch.equal(flat_parameters(negate(model)), before * signs)
    assert torch.equal(flat_parameters(model), before)


def test_named_layers_are_negated_and_normalisation_is_not(build_conv: BuildNet) -> None:
    model = build_conv()
    before, after = (split_like(flat_parameters(m), model) for m in (model, negate(model, ["5"])))
    for name in before:
        assert torch.equal(after[name], -before[name] if name.startswith("5.") else before[name])


# properties


@pytest.mark.parametrize("layers", [(), ("0",), ("0", "5")])
def test_negating_twice_changes_nothing(layers: tuple[str, ...], build_conv: BuildNet) -> None:
    model = build_conv()
    assert torch.equal(flat_parameters(negate(negate(model, layers), layers)), flat_parameters(model))


def test_without_epochs_the_model_is_only_negated(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model = build_net(4, 6, 3)
    result = finetune(negate(model), make_blobs(9), FinetuneSettings(epochs=0), torch_generator(0))
    assert torch.equal(flat_parameters(result), flat_parameters(negate(model)))


def test_fine_tuning_restores_the_retained_data(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, retain = build_net(4, 8, 3), make_blobs(60)
    result = finetune(negate(model), retain, FinetuneSettings(), torch_generator(0))
    assert evaluate(result, retain).loss < evaluate(negate(model), retain).loss


def test_batches_come_from_the_generator(
    build_net: BuildNet, make_blobs: MakeBlobs, assert_seeded: Callable[[Run], None]
) -> None:
    model, retain = build_net(4, 3), make_blobs(60)
    assert_seeded(lambda generator: finetune(negate(model), retain, FinetuneSettings(), generator))


# errors


def test_an_unknown_layer_is_refused_with_the_known_ones(build_conv: BuildNet) -> None:
    with pytest.raises(ValueError, match="no layer with weights is named '1'; known are 0, 5"):
        negate(build_conv(), ["0", "1"])

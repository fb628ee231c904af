"""unlearning/central/ascent.py: up the loss on the forgotten data, freely and inside the ball."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from strategies.client.evaluation import evaluate
from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator
from unlearning.central.ascent import (
    AscentSettings,
    ProjectedAscentSettings,
    ascend,
    ball_radius,
    project,
    projected_ascent,
    reference_model,
)
from unlearning.central.masks import flat_mask
from unlearning.central.parameters import flat_parameters

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]
Run = Callable[[torch.Generator], nn.Module]

vectors = st.lists(st.floats(-100, 100), min_size=3, max_size=3).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)


# by hand


def test_one_step_by_hand() -> None:
    """Two classes, zero weights, x = 2, y = 0: ∂ℓ/∂w = (−1, 1); up the loss with η = 0.1 is (−0.1, 0.1)."""
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.zero_()
    example = TensorExamples(torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([0]))
    settings = AscentSettings(epochs=1, learning_rate=0.1)
    result = flat_parameters(ascend(model, example, settings, torch_generator(0)))
    assert result.tolist() == pytest.approx([-0.1, 0.1])


def test_clipping_by_hand() -> None:
    """The gradient (1, −1) of the step above has norm √2; clipped to √2/2 it makes half the step."""
    model = nn.Linear(1, 2, bias=False).double()
    example = TensorExamples(torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([0]))
    settings = ProjectedAscentSettings(epochs=1, learning_rate=0.1, clip_norm=2**0.5 / 2, stop_accuracy=0.0)
    start = torch.zeros(2, dtype=torch.float64)
    result = projected_ascent(model, example, start, 9.0, settings, torch_generator(0))
    assert flat_parameters(result).tolist() == pytest.approx([-0.05, 0.05], rel=1e-5)


def test_reference_model_by_hand() -> None:
    """Clients at 0, 2 and 7 average to 3; without the last, (3·3 − 7)/2 = 1, the mean of 0 and 2."""
    reference = reference_model(torch.tensor([3.0]), torch.tensor([7.0]), num_clients=3)
    assert reference.tolist() == [1.0]


def test_ball_radius_by_hand() -> None:
    """Distances 3 and 5 from (0, 0) to (3, 0) and (3, 4): mean 4, a third of it 4/3.

    The released code averages the squares, 9 and 25, and takes the root of a third of 17: 2.38.
    """
    models = [torch.tensor([3.0, 0.0]), torch.tensor([3.0, 4.0])]
    assert ball_radius(torch.zeros(2), models) == pytest.approx(4 / 3)


def test_projection_by_hand() -> None:
    """From centre (1, 0): (4, 4) is 5 away, so radius 1 gives (1 + 3/5, 4/5); radius 5 leaves it."""
    point, center = torch.tensor([4.0, 4.0]), torch.tensor([1.0, 0.0])
    assert project(point, center, 1.0).tolist() == pytest.approx([1.6, 0.8])
    assert torch.equal(project(point, center, 5.0), point)


# properties


@given(point=vectors, center=vectors, radius=st.floats(0, 50))
def test_projection_ends_in_the_ball_and_is_settled_there(
    point: torch.Tensor, center: torch.Tensor, radius: float
) -> None:
    inside = project(point, center, radius)
    assert float((inside - center).norm()) <= radius + 1e-9
    torch.testing.assert_close(project(inside, center, radius + 1e-9), inside, rtol=0, atol=1e-9)


@given(models=st.lists(vectors, min_size=2, max_size=6))
def test_the_reference_is_the_mean_of_the_others(models: list[torch.Tensor]) -> None:
    average = torch.stack(models).mean(dim=0)
    reference = reference_model(average, models[0], len(models))
    torch.testing.assert_close(reference, torch.stack(models[1:]).mean(dim=0), rtol=0, atol=1e-9)


def test_the_loss_on_the_forgotten_data_rises(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, forget = build_net(4, 8, 3), make_blobs(40)
    before = flat_parameters(model)
    settings = AscentSettings(learning_rate=0.01)
    result = ascend(model, forget, settings, torch_generator(0))
    assert evaluate(result, forget).loss > evaluate(model, forget).loss
    assert torch.equal(flat_parameters(model), before)


def test_pruned_weights_stay_zero(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, masks = build_net(4, 3), {"0.weight": torch.arange(12).view(3, 4) % 2 == 0}
    result = ascend(model, make_blobs(30), AscentSettings(), torch_generator(0), masks=masks)
    assert torch.equal(flat_parameters(result) != 0, flat_mask(model, masks))


@pytest.mark.parametrize("radius", [0.0, 0.1, 1.0])
def test_projected_ascent_fills_the_ball_and_stays_in_it(
    radius: float, build_net: BuildNet, make_blobs: MakeBlobs
) -> None:
    model, forget = build_net(4, 8, 3), make_blobs(40)
    reference = flat_parameters(build_net(4, 8, 3, seed=1))
    settings = ProjectedAscentSettings(learning_rate=1.0, stop_accuracy=0.0)
    result = projected_ascent(model, forget, reference, radius, settings, torch_generator(0))
    distance = float((flat_parameters(result) - reference).norm())
    assert distance == pytest.approx(radius, abs=1e-9)


def test_projected_ascent_climbs_from_the_reference(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, forget = build_net(4, 8, 3), make_blobs(40)
    reference = flat_parameters(model)
    settings = ProjectedAscentSettings(stop_accuracy=0.0)
    result = projected_ascent(
        build_net(4, 8, 3, seed=1), forget, reference, 5.0, settings, torch_generator(0)
    )
    assert evaluate(result, forget).loss > evaluate(model, forget).loss


def test_projected_ascent_stops_once_it_has_forgotten(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    """Every accuracy is below 100 %, so the run ends after its first epoch; below 0 % is none."""
    model, forget = build_net(4, 8, 3), make_blobs(40)
    reference = flat_parameters(model)

    def run(epochs: int, stop: float) -> torch.Tensor:
        settings = ProjectedAscentSettings(epochs=epochs, stop_accuracy=stop, learning_rate=0.1)
        return flat_parameters(projected_ascent(model, forget, reference, 5.0, settings, torch_generator(0)))

    assert torch.equal(run(3, 100.0), run(1, 0.0))
    assert not torch.equal(run(3, 0.0), run(1, 0.0))


@pytest.mark.parametrize("projected", [False, True])
def test_batches_come_from_the_generator(
    projected: bool, build_net: BuildNet, make_blobs: MakeBlobs, assert_seeded: Callable[[Run], None]
) -> None:
    model, forget = build_net(4, 3), make_blobs(60)

    def run(generator: torch.Generator) -> nn.Module:
        if not projected:
            return ascend(model, forget, AscentSettings(), generator)
        settings = ProjectedAscentSettings(stop_accuracy=0.0)
        return projected_ascent(model, forget, flat_parameters(model), 9.0, settings, generator)

    assert_seeded(run)


# errors


def test_a_single_client_has_no_reference() -> None:
    with pytest.raises(ValueError, match="needs at least 2 clients, got 1"):
        reference_model(torch.zeros(1), torch.zeros(1), num_clients=1)


def test_a_radius_needs_random_models() -> None:
    with pytest.raises(ValueError, match="at least 1 random model, got none"):
        ball_radius(torch.zeros(1), [])

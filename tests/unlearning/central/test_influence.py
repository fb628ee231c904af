"""unlearning/central/influence.py: exact where theory says so, and the search for the step's length."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings as hypothesis_settings, strategies as st
from torch import Tensor, nn

from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator
from tests.strategies.other_tasks import Regression
from unlearning.central.gradients import ExampleSum, Objective, gradient_sum
from unlearning.central.influence import (
    AlphaTrial,
    InfluenceSettings,
    choose_alpha,
    finer_alphas,
    influence,
    influence_direction,
    influence_vector,
    search_alpha,
)
from unlearning.central.masks import flat_mask
from unlearning.central.parameters import flat_parameters, moved
from unlearning.central.training import SgdSettings, trained

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]
Run = Callable[[torch.Generator], nn.Module]


RIDGE = Objective(Regression())


def linear(weights: Tensor) -> nn.Module:
    model = nn.Linear(len(weights), 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(weights.unsqueeze(0))
    return model


def ridge(examples: Examples, damping: float) -> Tensor:
    """The minimum of mean ½(xᵀθ − y)² + (λ/2)‖θ‖², by its normal equations."""
    x, y = examples.x, examples.y.double()
    curvature = x.T @ x / len(examples) + damping * torch.eye(x.shape[1], dtype=torch.float64)
    solution: Tensor = torch.linalg.solve(curvature, x.T @ y / len(examples))
    return solution


@pytest.fixture
def split(build_net: BuildNet, make_blobs: MakeBlobs) -> tuple[nn.Module, Examples, Examples]:
    """A trained model, its retained and its forgotten data."""
    examples = make_blobs(90)
    model = trained(
        build_net(4, 8, 3), examples, SgdSettings(epochs=20, learning_rate=0.05), torch_generator(0)
    )
    return model, examples.subset(range(75)), examples.subset(range(75, 90))


# by hand


def test_the_vector_by_hand() -> None:
    """Σ over 1 forgotten example = 6, over 3 retained = 3: v = (6 − ⅓·3)/4 = 5/4.

    That is ∇L(D) − ∇L(D_r) = (6 + 3)/4 − 3/3 = 5/4.
    """
    forget = ExampleSum(torch.tensor([6.0], dtype=torch.float64), 1)
    retain = ExampleSum(torch.tensor([3.0], dtype=torch.float64), 3)
    assert influence_vector(forget, retain).tolist() == [1.25]


def test_the_length_that_forgets_most_within_the_budget_is_chosen() -> None:
    """α = 4 forgets most but costs 3 points; of 1 and 2, which cost at most 2, 2 forgets more."""
    trials = [
        AlphaTrial(0.0, 99.0, 0.1),
        AlphaTrial(1.0, 98.0, 0.5),
        AlphaTrial(2.0, 97.0, 0.9),
        AlphaTrial(4.0, 96.0, 2.0),
    ]
    assert choose_alpha(trials, max_retain_drop=2.0) == 2.0
    assert choose_alpha(trials, max_retain_drop=3.0) == 4.0
    assert choose_alpha(trials, max_retain_drop=0.5) == 0.0


def test_lengths_around_the_best_are_tried_next() -> None:
    """Chosen is 2, and 10 costs too much: sevenths between them; next to the longest there is nothing."""
    zero, two = AlphaTrial(0.0, 99.0, 0.1), AlphaTrial(2.0, 98.0, 1.0)
    ten = AlphaTrial(10.0, 50.0, 9.0)
    assert finer_alphas([zero, two, ten], 2.0) == (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    assert finer_alphas([zero, two], 2.0) == ()
    assert finer_alphas([zero, ten], 2.0) == tuple(10.0 / 2**k for k in range(7, 0, -1))


def test_the_search_finds_a_length_between_those_given(split: tuple[nn.Module, Examples, Examples]) -> None:
    """Where the given lengths forget too little or destroy D_r, one in between is taken."""
    model, retain, forget = split
    direction = influence_direction(model, retain, forget, InfluenceSettings(damping=0.1), torch_generator(0))
    coarse = InfluenceSettings(alphas=(1e-3, 1e6), max_retain_drop=2.0)
    result = search_alpha(model, direction, retain, forget, coarse)
    assert result.alpha == choose_alpha(result.trials, 2.0)
    assert [t.alpha for t in result.trials[:3]] == [0.0, 1e-3, 1e6]
    assert len(result.trials) == 10


def test_of_equal_lengths_the_shorter_is_chosen() -> None:
    trials = [AlphaTrial(0.0, 99.0, 0.1), AlphaTrial(1.0, 99.0, 0.5), AlphaTrial(2.0, 99.0, 0.5)]
    assert choose_alpha(trials, 1.0) == 1.0


def test_a_broken_model_is_not_chosen() -> None:
    trials = [
        AlphaTrial(0.0, 99.0, 0.1),
        AlphaTrial(1.0, 99.0, float("nan")),
        AlphaTrial(2.0, 99.0, float("inf")),
    ]
    assert choose_alpha(trials, 1.0) == 0.0


# against retraining, where the step is exact


@hypothesis_settings(deadline=None)  # the first call imports torch.func
@given(bits=st.lists(st.booleans(), min_size=32, max_size=32), num_forget=st.integers(1, 4))
def test_the_step_is_retraining_for_ridge_regression(bits: list[bool], num_forget: int) -> None:
    """Unit residuals make the empirical Fisher matrix the Hessian, so one step is exact.

    Eight rows x ∈ {−1, 1}³ and residuals r ∈ {−1, 1}⁸. Setting θo = Xᵀr/(8λ) and y = Xθo + r makes θo the
    ridge minimum with residuals r. On D_r, (1/N) Σ g gᵀ = (1/N) Σ r² x xᵀ = (1/N) Σ x xᵀ; λ is the damping.
    """
    signs = torch.tensor(bits, dtype=torch.float64).view(8, 4) * 2 - 1
    x, residuals, damping = signs[:, :3], signs[:, 3], 0.25
    weights = x.T @ residuals / (8 * damping)
    examples = TensorExamples(x, (x @ weights + residuals).round().long())
    torch.testing.assert_close(weights, ridge(examples, damping))

    retain, forget = examples.subset(range(8 - num_forget)), examples.subset(range(8 - num_forget, 8))
    model, settings = linear(weights), InfluenceSettings(damping=damping)
    direction = influence_direction(
        model, retain, forget, settings, torch_generator(0), objective=Objective(Regression())
    )
    torch.testing.assert_close(
        flat_parameters(moved(model, direction)), ridge(retain, damping), rtol=1e-9, atol=1e-9
    )


# properties


def test_clients_send_the_central_vector(split: tuple[nn.Module, Examples, Examples]) -> None:
    model, retain, forget = split
    central = influence_vector(gradient_sum(model, forget), gradient_sum(model, retain))
    clients = [retain.subset(range(start, 75, 4)) for start in range(4)]
    joined = ExampleSum.join(gradient_sum(model, client) for client in clients)
    federated = influence_vector(gradient_sum(model, forget), joined)
    torch.testing.assert_close(federated, central, rtol=1e-11, atol=1e-14)


def test_the_step_raises_the_loss_on_the_forgotten_data(split: tuple[nn.Module, Examples, Examples]) -> None:
    model, retain, forget = split
    before = flat_parameters(model)
    result = influence(model, retain, forget, InfluenceSettings(), torch_generator(0))
    chosen = next(trial for trial in result.trials if trial.alpha == result.alpha)
    assert result.alpha > 0
    assert chosen.forget_loss > result.trials[0].forget_loss
    assert chosen.retain_accuracy >= result.trials[0].retain_accuracy - 2.0
    assert torch.equal(flat_parameters(model), before)


def test_every_length_is_tried_and_the_chosen_one_taken(split: tuple[nn.Module, Examples, Examples]) -> None:
    model, retain, forget = split
    direction = torch.zeros(len(flat_parameters(model)), dtype=torch.float64)
    result = search_alpha(model, direction, retain, forget, InfluenceSettings(alphas=(1.0, 3.0)))
    assert [trial.alpha for trial in result.trials] == [0.0, 1.0, 3.0, *(2.0**-k for k in range(7, 0, -1))]
    assert result.alpha == 0.0
    assert torch.equal(flat_parameters(result.model), flat_parameters(model))


def test_pruned_weights_do_not_move(split: tuple[nn.Module, Examples, Examples]) -> None:
    model, retain, forget = split
    masks = {"0.weight": torch.arange(32).view(8, 4) % 2 == 0}
    direction = influence_direction(
        model, retain, forget, InfluenceSettings(), torch_generator(0), masks=masks
    )
    assert not direction[~flat_mask(model, masks)].any()
    assert direction[flat_mask(model, masks)].any()


def test_the_examples_in_f_come_from_the_generator(
    split: tuple[nn.Module, Examples, Examples], assert_seeded: Callable[[Run], None]
) -> None:
    model, retain, forget = split
    settings = InfluenceSettings(fisher_examples=20)
    assert_seeded(lambda g: moved(model, influence_direction(model, retain, forget, settings, g)))


# errors


@pytest.mark.parametrize(("num_forget", "num_retain"), [(0, 3), (3, 0)])
def test_an_empty_set_is_refused(num_forget: int, num_retain: int) -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    with pytest.raises(ValueError, match=f"got {num_forget} to forget and {num_retain} to retain"):
        influence_vector(ExampleSum(zero, num_forget), ExampleSum(zero, num_retain))


@pytest.mark.parametrize("alphas", [(), (1.0, 0.0)])
def test_lengths_that_go_nowhere_are_refused(alphas: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="alphas"):
        InfluenceSettings(alphas=alphas)


# a damaged answer


def test_the_opposite_direction_is_noticed() -> None:
    """One retained and one forgotten point on a line: the step must lead to the retained one.

    x = 1 and 1, y = 0 and 2: θo = 1 with residuals ∓1, F = 1 + λ, v = ½(−1 − 1) = −1, θu = 1 − 1 = 0 = y_r.
    """
    both = TensorExamples(torch.ones(2, 1, dtype=torch.float64), torch.tensor([0, 2]))
    model, retain, forget = linear(torch.ones(1, dtype=torch.float64)), both.subset([0]), both.subset([1])
    settings = InfluenceSettings(damping=1e-9)
    direction = influence_direction(
        model, retain, forget, settings, torch_generator(0), objective=Objective(Regression())
    )
    assert flat_parameters(moved(model, direction)).tolist() == pytest.approx([0.0], abs=1e-6)
    assert flat_parameters(moved(model, -direction)).tolist() == pytest.approx([2.0], abs=1e-6)

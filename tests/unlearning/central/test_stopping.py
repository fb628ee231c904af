"""unlearning/central/stopping.py: what D_f is to look like, steps that do not fade, the shortest length."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

from strategies.client.evaluation import evaluate
from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator
from strategies.task import CLASSIFICATION
from tests.strategies.other_tasks import Regression
from unlearning.central.ascent import AscentSettings, ascend, ascend_until, project
from unlearning.central.influence import (
    InfluenceSettings,
    influence_direction,
    influence_until,
    shortest_alpha,
)
from unlearning.central.masks import flat_mask
from unlearning.central.parameters import flat_parameters, moved
from unlearning.central.stopping import (
    SHARES,
    Goal,
    Standing,
    StepSettings,
    gone_labels,
    next_lengths,
    shortest,
    stepped,
    unsaturated,
)
from unlearning.central.training import SgdSettings, trained

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]
Split = tuple[nn.Module, Examples, Examples, Examples]


class Logits(nn.Module):
    """Says its inputs, times a weight of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.w


def sure_of(margins: list[float], labels: list[int]) -> TensorExamples:
    """Return examples of two labels whose φ under `Logits` is given; the loss is log(1 + exp(−φ))."""
    rows = [[m, 0.0] if y == 0 else [0.0, m] for m, y in zip(margins, labels, strict=True)]
    return TensorExamples(torch.tensor(rows), torch.tensor(labels))


def loss_at(margin: float) -> float:
    return math.log1p(math.exp(-margin))


# by hand


def test_a_goal_by_hand() -> None:
    """Of label 0 the held-out losses at φ = 1 and 3 have their mean; label 1 is gone; 2 has that of all."""
    held_out = sure_of([1.0, 3.0, 2.0], [0, 0, 1])
    goal = Goal.of(Logits(), held_out, 3, [1], CLASSIFICATION)
    everything = (loss_at(1) + loss_at(3) + loss_at(2)) / 3
    assert goal.losses == pytest.approx(((loss_at(1) + loss_at(3)) / 2, math.inf, everything), rel=1e-6)
    assert goal.otherwise == pytest.approx(everything, rel=1e-6)
    assert Goal.from_vector(goal.vector) == goal


def test_a_standing_by_hand() -> None:
    """φ = 2 of label 0, where 0.1 is wanted; of the gone label 1, one of two is still right."""
    forget = sure_of([2.0, 1.0, -1.0], [0, 1, 1])
    found = Standing.of(Logits(), forget, Goal((0.1, math.inf), 0.5), CLASSIFICATION)
    assert found.vector == pytest.approx((loss_at(2), 0.1, 1, 1, 2), rel=1e-6)
    assert not found.met
    assert Standing(loss_at(2), 0.1, 1, 0, 2).met
    assert not Standing(loss_at(2), 0.2, 1, 0, 2).met
    assert Standing(gone=100, right=1).met
    assert not Standing(gone=100, right=2).met


def test_a_step_by_hand() -> None:
    """(3, 4) has the norm 5; a share of 0.1 is 0.5, against (0, 2) it leads to (3, 3.5)."""
    assert stepped(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0]), 0.1).tolist() == [3.0, 3.5]
    assert stepped(torch.tensor([3.0, 4.0]), torch.zeros(2), 0.1).tolist() == [3.0, 4.0]


def test_one_step_up_by_hand() -> None:
    """w = 1 and φ = 20·w, so ℓ_s falls with w: a step of 0.25 of its norm leads to 0.75, and the next on."""
    forget = sure_of([20.0], [0])
    found = ascend_until(Logits(), forget, Goal((0.1, 0.1), 0.1), StepSettings(step_share=0.25, max_steps=1))
    assert flat_parameters(found.model).tolist() == [0.75]
    assert (found.steps, found.standing.met) == (1, False)


@pytest.mark.parametrize("margin", [-30.0, -1.0, 0.0, 5.0, 30.0])
def test_the_loss_of_a_step_does_not_fade_where_cross_entropy_does(margin: float) -> None:
    """ℓ_s = −log(1 − p), whose slope in φ is p: at φ = 30 it is 1, where that of cross-entropy is 1e-13."""
    logits = torch.tensor([[margin, 0.0]], dtype=torch.float64, requires_grad=True)
    loss = unsaturated(CLASSIFICATION)(logits, torch.tensor([0]))
    (slope,) = torch.autograd.grad(loss.sum(), logits)
    p = 1 / (1 + math.exp(-margin))
    assert float(slope[0, 0]) == pytest.approx(p, rel=1e-5)
    if margin < 20:
        assert float(loss.detach()) == pytest.approx(-math.log(1 - p), rel=1e-5)


def test_labels_that_only_the_forgotten_data_have() -> None:
    forget, retain = sure_of([1.0, 1.0], [0, 1]), sure_of([1.0], [1])
    assert gone_labels(forget, retain) == [0]
    assert gone_labels(retain, forget) == []


# against a slow reference


@given(wanted=st.floats(1e-3, 39.0))
def test_the_shortest_length_is_that_of_a_fine_grid(wanted: float) -> None:
    """Of lengths that meet the goal from `wanted` on; never below it, and at most 2 % above."""
    alpha, standing = shortest_alpha(
        lambda lengths: [Standing(loss=float(length >= wanted), wanted=1.0, count=1) for length in lengths],
        unit=39.0,
    )
    assert standing.met
    assert wanted <= alpha <= wanted * 1.02 + 1e-12


def test_the_shortest_length_by_bisection(split: Split) -> None:
    """Halving the interval forty times leads to the same."""
    model, retain, forget, held_out = split
    goal = Goal.of(model, held_out, 3, [], CLASSIFICATION)
    settings, parts = InfluenceSettings(damping=0.1), (retain, forget)
    found = influence_until(model, parts, goal, settings, torch_generator(0))
    direction = influence_direction(model, retain, forget, settings, torch_generator(0))
    low, high = 0.0, float(flat_parameters(model).norm() / direction.norm())
    for _ in range(40):
        middle = (low + high) / 2
        met = Standing.of(moved(model, middle * direction), forget, goal, CLASSIFICATION).met
        low, high = (low, middle) if met else (middle, high)
    assert found.met
    assert found.alpha == pytest.approx(high, rel=0.021)


def slow_ascent_and_halving(model: nn.Module, forget: Examples, wanted: float) -> tuple[Tensor, int]:
    """Return parameters and steps, the last of which is the least of its eighths that meets the goal."""
    end, steps = slow_ascent(model, forget, wanted, 0.01)
    start = slow_ascent(model, forget, wanted, 0.01, most=steps - 1)[0]
    for eighth in range(1, 9):
        point = start + (end - start) * eighth / 8
        at = moved(model, point.double() - flat_parameters(model).double())
        if evaluate(at, forget).loss >= wanted:
            return point, steps
    raise AssertionError("the whole step meets the goal")


def slow_ascent(
    model: nn.Module, forget: Examples, wanted: float, share: float, most: int = 1000
) -> tuple[Tensor, int]:
    """Return parameters and steps, with p and its logarithm written out, on a double of the model."""
    twin, steps = moved(model, torch.zeros(len(flat_parameters(model)))), 0
    parameters = list(twin.parameters())
    while True:
        p = twin(forget.x).softmax(dim=1)[torch.arange(len(forget)), forget.y]
        if steps == most or float(-p.detach().log().mean()) >= wanted:
            return flat_parameters(twin), steps
        gradients = torch.autograd.grad(-(1 - p).log().mean(), parameters)
        size, length = (
            math.sqrt(sum(float((t.detach() ** 2).sum()) for t in ts)) for ts in (parameters, gradients)
        )
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= share * size / length * gradient
        steps += 1


def test_steps_equal_those_written_out(split: Split) -> None:
    model, _, forget, _ = split
    wanted = 0.5
    goal = Goal((wanted,) * 3, wanted)
    found = ascend_until(model, forget, goal, StepSettings(step_share=0.01))
    expected, steps = slow_ascent_and_halving(model, forget, wanted)
    assert found.steps == steps > 2
    torch.testing.assert_close(flat_parameters(found.model), expected, rtol=1e-4, atol=1e-5)


# a saturated model


@pytest.fixture(scope="module")
def saturated() -> Split:
    """Return a model that is sure of all it was trained on (loss 0.006), D_r, D_f and held-out data.

    The inputs say little of the classes, so it knows D_f by heart.
    """
    generator = torch_generator(3, "saturated")
    x, y = torch.randn((120, 16), generator=generator), torch.randint(3, (120,), generator=generator)
    everything = TensorExamples(x + 0.8 * nn.functional.one_hot(y, 16), y)
    train, held_out = everything.subset(range(80)), everything.subset(range(80, 120))
    net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    model = trained(net, train, SgdSettings(epochs=60, learning_rate=0.1), torch_generator(0))
    return model, train.subset(range(64)), train.subset(range(64, 80)), held_out


def test_a_saturated_model_is_forgotten_by_the_rule_and_not_by_fixed_steps(saturated: Split) -> None:
    """At a loss of 0.006 and less the papers' five passes leave everything right; the rule does not."""
    model, _, forget, held_out = saturated
    before, wanted = evaluate(model, forget).loss, evaluate(model, held_out).loss
    assert before < 0.006
    assert wanted > 0.3
    fixed = ascend(model, forget, AscentSettings(), torch_generator(0))
    assert evaluate(fixed, forget).loss < 0.006
    found = ascend_until(model, forget, Goal.of(model, held_out, 3, [], CLASSIFICATION), StepSettings())
    assert found.standing.met
    assert wanted / 2 < evaluate(found.model, forget).loss < 3 * wanted


def test_a_class_of_a_saturated_model_is_forgotten_and_the_others_are_not(saturated: Split) -> None:
    model, retain, forget, _ = saturated
    everything = TensorExamples(torch.cat([retain.x, forget.x]), torch.cat([retain.y, forget.y]))
    of_class, others = everything.split(everything.y == 1)
    goal = Goal.of(model, None, 3, gone_labels(of_class, others), CLASSIFICATION)
    found = ascend_until(model, of_class, goal, StepSettings())
    assert found.standing.met
    assert evaluate(found.model, of_class).accuracy <= 1.0
    assert evaluate(found.model, others).accuracy > 90.0
    fixed = ascend(model, of_class, AscentSettings(), torch_generator(0))
    assert evaluate(fixed, of_class).accuracy == 100.0


# properties


@pytest.fixture
def split(build_net: BuildNet, make_blobs: MakeBlobs) -> Split:
    """Return a trained model, D_r, D_f and held-out data."""
    examples = make_blobs(140)
    model = trained(
        build_net(4, 8, 3),
        examples.subset(range(90)),
        SgdSettings(epochs=20, learning_rate=0.1),
        torch_generator(0),
    )
    parts = (range(75), range(75, 90), range(90, 140))
    retain, forget, held_out = (examples.subset(part) for part in parts)
    return model, retain, forget, held_out


def test_a_model_that_meets_its_goal_stays_as_it_is(split: Split) -> None:
    model, retain, forget, _ = split
    goal = Goal((0.0,) * 3, 0.0)
    found = ascend_until(model, forget, goal, StepSettings())
    assert found.steps == 0
    assert flat_parameters(found.model).equal(flat_parameters(model))
    step = influence_until(model, (retain, forget), goal, InfluenceSettings(), torch_generator(0))
    assert step.alpha == 0.0


def test_the_cap_ends_it_and_the_standing_says_so(split: Split) -> None:
    model, retain, forget, _ = split
    never = Goal((1e9,) * 3, 1e9)
    found = ascend_until(model, forget, never, StepSettings(max_steps=3))
    assert (found.steps, found.standing.met) == (3, False)
    assert "where held-out data have 1e+09" in found.standing.in_words()
    step = influence_until(model, (retain, forget), never, InfluenceSettings(), torch_generator(0))
    assert not step.met
    size = float(flat_parameters(model).norm())
    length = float((flat_parameters(step.model) - flat_parameters(model)).norm())
    assert length == pytest.approx(SHARES[-1] * size, rel=1e-4)


def test_pruned_weights_do_not_move(split: Split) -> None:
    model, _, forget, _ = split
    masks = {"0.weight": torch.arange(32).view(8, 4) % 2 == 0}
    found = ascend_until(model, forget, Goal((9.0,) * 3, 9.0), StepSettings(max_steps=3), masks=masks)
    change = flat_parameters(found.model) - flat_parameters(model)
    assert not change[~flat_mask(model, masks)].any()
    assert change.any()


def test_steps_stay_in_a_ball(split: Split) -> None:
    model, _, forget, _ = split
    center = flat_parameters(model)
    found = ascend_until(
        model,
        forget,
        Goal((99.0,) * 3, 99.0),
        StepSettings(max_steps=30),
        within=lambda flat: project(flat, center, 0.1),
    )
    assert float((flat_parameters(found.model) - center).norm()) == pytest.approx(0.1, rel=1e-5)


def test_standings_of_clients_add_up(split: Split) -> None:
    model, _, forget, held_out = split
    goal = Goal.of(model, held_out, 3, [2], CLASSIFICATION)
    parts = [forget.subset(range(4)), forget.subset(range(4, 15)), forget.subset([])]
    total = sum((Standing.of(model, part, goal, CLASSIFICATION) for part in parts), Standing())
    assert total.vector == pytest.approx(Standing.of(model, forget, goal, CLASSIFICATION).vector)


def test_a_task_without_labels_has_one_goal() -> None:
    """The mean loss of all held-out data, ½ (1 + 9) / 2 of residuals 1 and 3."""
    held_out = TensorExamples(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 0.0]))
    goal = Goal.of(Logits(), held_out, 0, [], Regression())
    assert goal.vector == (2.5,)
    assert Standing.of(Logits(), held_out, goal, Regression()).vector == (5.0, 5.0, 2, 0, 0)


def test_examples_without_a_label_say_nothing() -> None:
    held_out = TensorExamples(torch.tensor([[1.0, 0.0], [9.0, 0.0]]), torch.tensor([0, -1]))
    assert Goal.of(Logits(), held_out, 2, [], CLASSIFICATION).otherwise == pytest.approx(loss_at(1))


def test_lengths_that_are_tried_lie_between() -> None:
    assert next_lengths({0.0: True, 1.0: True}) == ()
    assert next_lengths({0.0: False, 1.0: False, 1.01: True}) == ()
    assert shortest({0.0: False, 2.0: True, 1.0: True}) == 1.0
    assert shortest({0.0: False}) is None


# errors


def test_what_nothing_is_known_of_is_an_error(split: Split) -> None:
    model, _, forget, _ = split
    nothing = Goal.of(model, None, 3, [0], CLASSIFICATION)
    with pytest.raises(
        ValueError, match="labelled held-out data are needed to tell when examples are forgotten"
    ):
        ascend_until(model, forget, nothing, StepSettings())

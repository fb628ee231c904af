"""unlearning/central/certified.py: by hand, against autograd, the paper's own step, and the true minimum."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn
from torch.nn import functional

from strategies.core.errors import LetheError
from strategies.core.examples import Examples, TensorExamples
from strategies.core.gaussian_mechanism import largest_ratio
from strategies.core.secret_random import RandomStream
from unlearning.central.certified import (
    CertifiedSettings,
    HeadSum,
    certified,
    head_inputs,
    head_of,
    head_sum,
    head_weights,
    joined,
    load_head,
    minimised,
)

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]
L2 = 0.05
SETTINGS = CertifiedSettings(regularisation=L2, noise=0.02)


@pytest.fixture
def model(build_net: BuildNet) -> nn.Module:
    """Return a frozen layer of six neurons before a head of three classes."""
    net = build_net(4, 6, 3)
    for parameter in net[0].parameters():  # type: ignore[index]
        parameter.requires_grad_(False)
    return net


def slow_loss(weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return L, by the definition."""
    outputs = inputs @ weights.view(-1, inputs.shape[1]).T
    return functional.cross_entropy(outputs, labels) + L2 / 2 * weights.square().sum()


def slow_minimum(inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the minimum of L, by plain gradient descent until it stands still."""
    weights = torch.zeros(3 * inputs.shape[1], dtype=torch.float64, requires_grad=True)
    for _ in range(4000):
        (gradient,) = torch.autograd.grad(slow_loss(weights, inputs, labels), weights)
        weights = (weights - 0.3 * gradient).detach().requires_grad_()
    assert float(gradient.norm()) < 1e-9
    return weights.detach()


def newton(inputs: Tensor, labels: Tensor, start: Tensor, target: float = 1e-12) -> Tensor:
    """Return what the method's steps come to."""
    return minimised(lambda w: head_sum(w, inputs, labels), start, L2, target, 30).weights


# by hand


def test_one_example_of_two_classes_by_hand() -> None:
    """At w = 0 with x = 2, class 0: p = 1/2, so gradient (−1, 1), and 4 · (1/4) (1, −1; −1, 1)."""
    found = head_sum(torch.zeros(2).double(), torch.tensor([[2.0]]).double(), torch.tensor([0]))
    assert found.gradient.tolist() == [-1.0, 1.0]
    assert found.hessian.tolist() == [[1.0, -1.0], [-1.0, 1.0]]


# the slow references


def test_gradient_and_hessian_against_autograd(model: nn.Module, make_blobs: MakeBlobs) -> None:
    inputs, labels = head_inputs(model, make_blobs(30))
    weights = head_weights(head_of(model))
    found = head_sum(weights, inputs, labels)

    def loss(w: Tensor) -> Tensor:
        return slow_loss(w, inputs, labels)

    gradient = torch.autograd.functional.jacobian(loss, weights)
    hessian = torch.autograd.functional.hessian(loss, weights)
    eye = torch.eye(len(weights), dtype=torch.float64)
    torch.testing.assert_close(found.gradient / 30 + L2 * weights, gradient)
    torch.testing.assert_close(found.hessian / 30 + L2 * eye, hessian)


def test_the_heads_inputs_give_the_models_outputs(model: nn.Module, make_blobs: MakeBlobs) -> None:
    examples = make_blobs(10)
    inputs, labels = head_inputs(model, examples, batch_size=3)
    rows = head_weights(head_of(model)).view(3, 7)
    torch.testing.assert_close(inputs @ rows.T, model(examples.x).detach())
    assert labels.equal(examples.y)


def test_the_papers_step(model: nn.Module, make_blobs: MakeBlobs) -> None:
    """Their (3), with sums: w* + H⁻¹Δ, Δ = λw* + ∇ℓ of what is removed, H of the others' loss at w*."""
    inputs, labels = head_inputs(model, make_blobs(40))
    best = newton(inputs, labels, torch.zeros(21).double())
    removed, rest = head_sum(best, inputs[-1:], labels[-1:]), head_sum(best, inputs[:-1], labels[:-1])
    hessian = rest.hessian + 39 * L2 * torch.eye(21, dtype=torch.float64)
    theirs = best + torch.linalg.solve(hessian, L2 * best + removed.gradient)

    seen: list[Tensor] = []

    def total(weights: Tensor) -> HeadSum:
        seen.append(weights)
        return head_sum(weights, inputs[:-1], labels[:-1])

    minimised(total, best, L2, 1e-12, 30)
    torch.testing.assert_close(seen[1], theirs)


def test_the_minimum_is_that_of_plain_descent(model: nn.Module, make_blobs: MakeBlobs) -> None:
    inputs, labels = head_inputs(model, make_blobs(30))
    found = newton(inputs, labels, head_weights(head_of(model)))
    torch.testing.assert_close(found, slow_minimum(inputs, labels), rtol=1e-6, atol=1e-7)


@given(st.floats(1e-6, 1.0), st.integers(0, 10))
def test_the_residual_bounds_the_distance(target: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs = 3 * torch.randn(12, 2, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (12,), generator=generator)
    start = torch.randn(6, generator=generator, dtype=torch.float64)
    exact = newton(inputs, labels, start)
    found = minimised(lambda w: head_sum(w, inputs, labels), start, L2, target, 30)
    assert found.residual <= target
    assert float((found.weights - exact).norm()) <= found.residual / L2 + 1e-9


def test_far_away_steps_are_halved(make_blobs: MakeBlobs) -> None:
    """Where all are sure and wrong, the Hessian is nearly λI and a whole step is far too long."""
    inputs, labels = make_blobs(20).x, make_blobs(20).y
    start = -40 * torch.eye(3, 4, dtype=torch.float64).reshape(-1)
    found = minimised(lambda w: head_sum(w, inputs, labels), start, L2, 1e-9, 200)
    torch.testing.assert_close(found.weights, newton(inputs, labels, torch.zeros(12).double()))


# the federated form


def test_the_sums_of_clients_are_the_sum_of_all(model: nn.Module, make_blobs: MakeBlobs) -> None:
    inputs, labels = head_inputs(model, make_blobs(30))
    weights = head_weights(head_of(model))
    whole = head_sum(weights, inputs, labels)
    parts = joined(head_sum(weights, inputs[at], labels[at]) for at in (slice(0, 7), slice(7, 30)))
    torch.testing.assert_close(parts.gradient, whole.gradient)
    torch.testing.assert_close(parts.hessian, whole.hessian)
    assert parts.count == 30


# the removal


def test_what_was_forgotten_has_no_part_in_the_result(model: nn.Module, make_blobs: MakeBlobs) -> None:
    """From two heads, one trained with an example and one without, the same noise: less than Δ apart."""
    retain = make_blobs(30)
    inputs, labels = head_inputs(model, retain)
    extra = torch.cat([inputs, 5 * inputs[:1]]), torch.cat([labels, (labels[:1] + 1) % 3])
    heads = []
    for trained_on in ((inputs, labels), extra):
        load_head(head_of(model), newton(*trained_on, torch.zeros(21).double()))
        result = certified(model, retain, SETTINGS, RandomStream.seeded(0))
        heads.append(head_weights(head_of(result.model)))
        assert result.residual <= L2 * SETTINGS.noise * largest_ratio(1.0, 1e-5)
        assert result.largest_distance == result.residual / L2
    between = SETTINGS.noise * largest_ratio(SETTINGS.epsilon, SETTINGS.delta)
    assert 0 < float((heads[0] - heads[1]).norm()) <= 2 * between
    assert float((heads[0] - newton(inputs, labels, heads[0])).norm()) > 3 * between  # The noise is there


def test_the_given_model_and_the_body_stay(model: nn.Module, make_blobs: MakeBlobs) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = certified(model, make_blobs(30), SETTINGS)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    after = result.model.state_dict()
    assert after["0.weight"].equal(before["0.weight"])
    assert not after["2.weight"].equal(before["2.weight"])


def test_noise_is_secret_unless_a_stream_is_given(model: nn.Module, make_blobs: MakeBlobs) -> None:
    def drawn(stream: RandomStream | None) -> Tensor:
        return head_weights(head_of(certified(model, make_blobs(30), SETTINGS, stream).model))

    assert drawn(RandomStream.seeded(1)).equal(drawn(RandomStream.seeded(1)))
    assert not drawn(None).equal(drawn(None))


def test_a_head_without_a_bias(make_blobs: MakeBlobs) -> None:
    head = nn.Linear(4, 3, bias=False).double()
    result = certified(head, make_blobs(30), SETTINGS)
    assert head_weights(head_of(result.model)).shape == (12,)


# refusals


def test_a_body_that_trained_is_refused(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    with pytest.raises(ValueError, match=r"one linear layer trains and nothing else: .* 0\.bias, 0\.weight"):
        certified(build_net(4, 6, 3), make_blobs(10), SETTINGS)


def test_a_head_that_is_not_the_last_is_refused(make_blobs: MakeBlobs) -> None:
    with pytest.raises(ValueError, match="outputs are those of its head"):
        certified(nn.Sequential(nn.Linear(4, 3).double(), nn.Tanh()), make_blobs(10), SETTINGS)


def test_a_large_head_is_refused(make_blobs: MakeBlobs) -> None:
    with pytest.raises(ValueError, match="more than 4096 parameters"):
        certified(nn.Linear(4, 1000).double(), make_blobs(10), SETTINGS)


def test_a_spent_budget_is_refused(model: nn.Module, make_blobs: MakeBlobs) -> None:
    two = SETTINGS.model_copy(update={"budget": 2.0})
    assert certified(model, make_blobs(10), two, earlier=1).spent_epsilon == 2.0
    with pytest.raises(ValueError, match=r"2 results at ε = 1 .* would make 3 of a budget of 2; train anew"):
        certified(model, make_blobs(10), two, earlier=2)


def test_no_example_left_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="no example left"):
        certified(model, TensorExamples(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)), SETTINGS)


def test_a_residual_that_stays_too_large_is_an_error(model: nn.Module, make_blobs: MakeBlobs) -> None:
    short = SETTINGS.model_copy(update={"max_steps": 1, "noise": 1e-9})
    with pytest.raises(LetheError, match="after 1 passes, the noise hides"):
        certified(model, make_blobs(30), short)

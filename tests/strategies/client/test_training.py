"""Seeded batches and the steps of the optimiser, against arithmetic by hand."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn
from torch.nn import functional

from strategies.client.settings import TrainSettings
from strategies.client.training import (
    ClientJob,
    OneModel,
    StepState,
    Tensors,
    TrainStats,
    batches,
    local_steps,
    local_train,
    make_optimizer,
    planned_steps,
)
from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator
from strategies.core.wire import Layout
from strategies.settings import StrategySettings
from strategies.task import CLASSIFICATION

PLAIN = TrainSettings(momentum=0.0, batch_size=4, local_epochs=2)
NUM_EXAMPLES = 10


def model_of_ones() -> nn.Linear:
    """Return logits W·x + c with W all ones, c zero, two classes of three inputs."""
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.zero_()
    return model


def data(n: int = NUM_EXAMPLES) -> Examples:
    """Return n examples of two classes."""
    return TensorExamples(torch.randn(n, 3, generator=torch_generator(0, "data")), torch.arange(n) % 2)


def parameters_of(model: nn.Module) -> Tensor:
    """Return a model's parameters as one vector."""
    return Layout.of(model.state_dict()).flatten(model.state_dict())


def trained(train: TrainSettings = PLAIN, seed: int = 0, *, num_steps: int | None = None) -> Tensor:
    """Return the parameters after training from ones."""
    model = model_of_ones()
    generator = torch_generator(seed, "batches")
    rates = None if num_steps is None else [train.learning_rate] * num_steps
    local_train(model, data(), train, generator, rates=rates)
    return parameters_of(model)


def slow_sgd(
    num_steps: int, train: TrainSettings, seed: int = 0, rates: Sequence[float] | None = None
) -> Tensor:
    """Return the parameters after SGD with momentum, v ← m·v + g, w ← w − η·v, with autograd in float64."""
    w = torch.tensor([1.0] * 6 + [0.0] * 2, dtype=torch.float64, requires_grad=True)
    velocity = torch.zeros(8, dtype=torch.float64)
    examples = data()
    drawn = batches(len(examples), train.batch_size, num_steps, torch_generator(seed, "batches"))
    for index, rate in zip(drawn, rates or [train.learning_rate] * num_steps, strict=True):
        logits = examples.x[index].double() @ w[:6].view(2, 3).T + w[6:]
        loss = -functional.log_softmax(logits, dim=1)[torch.arange(len(index)), examples.y[index]].mean()
        (gradient,) = torch.autograd.grad(loss, w)
        if train.max_gradient_norm and gradient.norm() > train.max_gradient_norm:
            gradient = gradient * train.max_gradient_norm / gradient.norm()
        velocity = train.momentum * velocity + gradient
        step = gradient + train.momentum * velocity if train.nesterov else velocity
        w = (w - rate * step).detach().requires_grad_()
    return w.detach().float()


# by hand


def test_one_step_by_hand() -> None:
    """One example x = (1, 2, 0) of class 0; equal logits, so p = (½, ½) and the loss is ln 2.

    The gradient of the logits is p − (1, 0) = (−½, ½), that of W is its outer product with x. With a rate of
    0.1 row 0 becomes 1 + 0.05·x = (1.05, 1.1, 1), row 1 (0.95, 0.9, 1), the biases ±0.05.
    """
    model = model_of_ones()
    one = TensorExamples(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([0]))
    stats = local_train(
        model, one, PLAIN.model_copy(update={"learning_rate": 0.1}), torch_generator(0), rates=[0.1]
    )
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[1.05, 1.1, 1.0], [0.95, 0.9, 1.0]]))
    torch.testing.assert_close(model.bias.detach(), torch.tensor([0.05, -0.05]))
    assert stats.num_steps == 1
    assert stats.mean_loss == pytest.approx(math.log(2.0))


@pytest.mark.parametrize(
    ("num_examples", "epochs", "steps", "expected"),
    [(10, 1, 0, 3), (10, 2, 0, 6), (8, 2, 0, 4), (1, 3, 0, 3), (10, 2, 5, 5), (10, 2, 100, 100)],
)
def test_planned_steps(num_examples: int, epochs: int, steps: int, expected: int) -> None:
    """Batches of 4: ten examples are 3 steps an epoch; a number of steps goes before epochs."""
    train = TrainSettings(batch_size=4, local_epochs=epochs, local_steps=steps)
    assert planned_steps(num_examples, train) == expected
    stats = local_train(model_of_ones(), data(num_examples), train, torch_generator(0))
    assert stats.num_steps == expected


def test_learning_rate_of_a_round() -> None:
    """0.1 halved every round is 0.025 in the third."""
    train = TrainSettings(learning_rate=0.1, lr_decay=0.5)
    job = ClientJob(model_of_ones(), data(), train, StrategySettings(), "0", 3, torch_generator(0))
    assert job.rates(2) == pytest.approx([0.025, 0.025])


def test_weight_decay_by_hand() -> None:
    """A gradient of zero, weight 1, decay ½, rate 0.1: SGD leaves 1 − 0.1·½, decoupled decay the same."""
    for kind in ("sgd", "adamw"):
        weight = nn.Parameter(torch.ones(1))
        weight.grad = torch.zeros(1)
        train = TrainSettings.model_validate(
            {"optimizer": kind, "momentum": 0.0, "weight-decay": 0.5, "learning-rate": 0.1}
        )
        make_optimizer([weight], train).step()
        assert weight.tolist() == pytest.approx([0.95])


def test_adam_by_hand() -> None:
    """Adam's first step is the rate against the gradient's sign: ∓0.1 whatever the size."""
    for kind in ("adam", "adamw"):
        weight = nn.Parameter(torch.ones(2))
        weight.grad = torch.tensor([3.0, -0.01])
        make_optimizer(
            [weight], TrainSettings.model_validate({"optimizer": kind, "learning-rate": 0.1})
        ).step()
        assert weight.tolist() == pytest.approx([0.9, 1.1], rel=1e-5)


# against slow references


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_equals_slow_sgd(momentum: float) -> None:
    """Two epochs of three batches, with autograd in float64."""
    train = PLAIN.model_copy(update={"momentum": momentum})
    torch.testing.assert_close(trained(train), slow_sgd(6, train), rtol=1e-5, atol=1e-6)


def test_mean_loss_is_over_the_steps() -> None:
    """With the model held still the mean of the steps' losses can be added up by hand."""
    model = model_of_ones()
    losses = [
        functional.cross_entropy(model(data().x[index]), data().y[index]).item()
        for index in batches(NUM_EXAMPLES, 4, 6, torch_generator(0, "batches"))
    ]
    stats = local_train(
        model, data(), PLAIN.model_copy(update={"learning_rate": 0.0}), torch_generator(0, "batches")
    )
    assert stats.mean_loss == pytest.approx(sum(losses) / 6)


# batches


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 3))
def test_an_epoch_is_a_permutation(num_examples: int, batch_size: int, epochs: int) -> None:
    """Each epoch sees every example once; only its last batch may be smaller, and is what is left."""
    per_epoch = math.ceil(num_examples / batch_size)
    generator = torch_generator(0, "batches")
    all_batches = [b.tolist() for b in batches(num_examples, batch_size, per_epoch * epochs, generator)]
    assert len(all_batches) == per_epoch * epochs
    for start in range(0, len(all_batches), per_epoch):
        epoch = all_batches[start : start + per_epoch]
        assert sorted(i for batch in epoch for i in batch) == list(range(num_examples))
        assert all(len(batch) == batch_size for batch in epoch[:-1])
        assert len(epoch[-1]) == num_examples - batch_size * (per_epoch - 1)


def test_epochs_differ() -> None:
    """The second epoch is in another order than the first."""
    first, second = batches(100, 100, 2, torch_generator(0, "batches"))
    assert not first.equal(second)


@settings(deadline=None)
@given(st.integers(0, 20))
def test_number_of_batches(num_steps: int) -> None:
    """As many as asked for, in the middle of an epoch too, and the same ones as of a longer run."""
    some = [b.tolist() for b in batches(10, 4, num_steps, torch_generator(0, "batches"))]
    more = [b.tolist() for b in batches(10, 4, 21, torch_generator(0, "batches"))]
    assert some == more[:num_steps]


# settings count


def test_learning_rate_is_used() -> None:
    """One step moves in proportion."""
    start = parameters_of(model_of_ones())
    step, twice = (
        trained(PLAIN.model_copy(update={"learning_rate": rate}), num_steps=1) - start for rate in (0.1, 0.2)
    )
    torch.testing.assert_close(twice, 2 * step, rtol=1e-4, atol=1e-6)
    assert step.abs().max() > 1e-3


def test_num_steps_goes_before_the_settings() -> None:
    """Six steps are the two epochs of the settings; five are not."""
    assert trained(num_steps=6).equal(trained())
    assert not trained(num_steps=5).equal(trained())


@pytest.mark.parametrize("more", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
@pytest.mark.parametrize("rates", [None, [0.3, 0.2, 0.1, 0.05, 0.4]])
def test_it_is_slow_sgd(more: dict[str, Any], rates: list[float] | None) -> None:
    """With momentum of either kind, and with a learning rate for each step."""
    train, model = PLAIN.model_copy(update=more), model_of_ones()
    local_train(model, data(), train, torch_generator(0, "batches"), rates=rates)
    expected = slow_sgd(len(rates) if rates else 6, train, rates=rates)
    torch.testing.assert_close(parameters_of(model), expected, rtol=1e-5, atol=1e-6)


def test_a_job_trains_by_its_schedule() -> None:
    """In the second of four rounds of six steps, at the rates that the settings have for them."""
    train, model = PLAIN.model_copy(update={"schedule": "cosine", "warm_up": 2.0}), model_of_ones()
    generator = torch_generator(0, "batches")
    job = ClientJob(model, data(), train, StrategySettings(), "0", 2, generator, rounds=4)
    job.train_model(model)
    rates = train.rates(2, 4, 6)
    assert len(set(rates)) == 6
    torch.testing.assert_close(parameters_of(model), slow_sgd(6, train, rates=rates), rtol=1e-5, atol=1e-6)


def test_a_gradient_is_clipped_by_hand() -> None:
    """As above, the gradient is (∓½, ∓1, 0) and ∓½, of norm √3: clipped to 0.6 of it, so is the step."""
    model = model_of_ones()
    one = TensorExamples(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([0]))
    train = PLAIN.model_copy(update={"max_gradient_norm": 0.6 * math.sqrt(3)})
    local_train(model, one, train, torch_generator(0), rates=[0.1])
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[1.03, 1.06, 1.0], [0.97, 0.94, 1.0]]))
    torch.testing.assert_close(model.bias.detach(), torch.tensor([0.03, -0.03]))


@pytest.mark.parametrize("norm", [0.05, 0.4])
def test_clipped_training_is_slow_sgd(norm: float) -> None:
    train = PLAIN.model_copy(update={"max_gradient_norm": norm, "momentum": 0.9})
    torch.testing.assert_close(trained(train), slow_sgd(6, train), rtol=1e-4, atol=1e-5)
    assert not trained(train).allclose(slow_sgd(6, PLAIN.model_copy(update={"momentum": 0.9})), atol=1e-3)


def test_a_norm_that_nothing_reaches_changes_no_bit_and_0_is_neutral() -> None:
    assert trained(PLAIN.model_copy(update={"max_gradient_norm": 1e9})).equal(trained())
    assert trained(PLAIN.model_copy(update={"max_gradient_norm": 0.0})).equal(trained())


def test_an_algorithms_own_terms_are_not_clipped() -> None:
    """The gradient of the loss is cut to nothing; a correction of 1 moves every parameter by the rate."""
    train, model = PLAIN.model_copy(update={"max_gradient_norm": 1e-9}), model_of_ones()
    state = StepState(correction=[torch.ones(2, 3), torch.ones(2)])
    local_train(model, data(), train, torch_generator(0), rates=[0.1], adjust=state.adjustment)
    torch.testing.assert_close(parameters_of(model_of_ones()) - parameters_of(model), torch.full((8,), 0.1))


def test_rmsprop_by_hand() -> None:
    """Its first step is the rate times g / √(0.01 g²): ten times the rate, against the gradient's sign."""
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([2.0, -0.5])
    make_optimizer([weight], TrainSettings(optimizer="rmsprop", learning_rate=0.01)).step()
    assert weight.tolist() == pytest.approx([0.9, 1.1])


def test_optimizers_differ() -> None:
    """Neutral momentum is plain SGD; momentum of both kinds and the others each differ from all before."""
    changes: list[dict[str, str | float]] = [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"optimizer": "rmsprop"},
        {"optimizer": "adam"},
        {"weight_decay": 0.1},
        {"optimizer": "adam", "weight_decay": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.1},
    ]
    results = [trained(PLAIN.model_copy(update=change)) for change in changes]
    for i, one in enumerate(results):
        assert not any(one.equal(other) for other in results[:i])


def test_adjust_is_called_once_per_step() -> None:
    """With the trainable parameters and their fresh gradients; the frozen bias is not among them."""
    model = model_of_ones()
    model.bias.requires_grad_(False)
    seen: list[Tensor] = []

    def adjust(parameters: Tensors, gradients: Tensors) -> Tensors:
        (weight,), (gradient,) = parameters, gradients
        assert weight is model.weight
        seen.append(gradient.clone())
        return gradients

    stats = local_train(model, data(), PLAIN, torch_generator(0, "batches"), adjust=adjust)
    assert len(seen) == stats.num_steps == 6
    moved = torch.ones(2, 3) - PLAIN.learning_rate * torch.stack(seen).sum(dim=0)
    torch.testing.assert_close(model.weight.detach(), moved)
    assert model.bias.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("factor", "changed"), [(1.0, False), (2.0, True), (0.0, True)])
def test_adjust_changes_the_result(factor: float, changed: bool) -> None:
    """Gradients times one are plain training; times two, not; times zero, the model stays."""

    def scale(parameters: Tensors, gradients: Tensors) -> Tensors:
        return [gradient * factor for gradient in gradients]

    model = model_of_ones()
    local_train(model, data(), PLAIN, torch_generator(0, "batches"), adjust=scale)
    assert parameters_of(model).equal(trained()) is not changed
    assert parameters_of(model).equal(parameters_of(model_of_ones())) is (factor == 0.0)


@pytest.mark.parametrize("more", [{"momentum": 0.9}, {"optimizer": "adam"}, {"optimizer": "rmsprop"}])
def test_gradients_in_another_memory_order_than_the_weights_change_nothing(more: dict[str, Any]) -> None:
    """Weights with their channels last, and an adjustment that returns gradients with them first.

    Fused optimisers read both as they lie in memory.
    """
    generator = torch_generator(0, "images")
    images = TensorExamples(torch.randn(8, 3, 5, 5, generator=generator), torch.arange(8) % 2)
    settings = PLAIN.model_copy(update={"learning_rate": 0.01, **more})

    def first(parameters: Tensors, gradients: Tensors) -> Tensors:
        return [gradient.contiguous() for gradient in gradients]

    def steps(order: torch.memory_format) -> Tensor:
        layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)]
        for number, layer in enumerate(layers):
            for parameter in layer.parameters():
                nn.init.normal_(parameter, std=0.3, generator=torch_generator(number, "weights"))
        model = nn.Sequential(*layers).to(memory_format=order)
        assert next(model.parameters()).is_contiguous() is (order == torch.contiguous_format)
        local_train(model, images, settings, torch_generator(0, "batches"), adjust=first)
        return parameters_of(model)

    torch.testing.assert_close(
        steps(torch.channels_last), steps(torch.contiguous_format), rtol=1e-4, atol=1e-5
    )


def test_trains_in_train_mode() -> None:
    """Whatever mode the model came in."""
    model = model_of_ones().eval()
    local_train(model, data(), PLAIN, torch_generator(0))
    assert model.training


# nothing to do


def test_zero_steps_leave_the_model() -> None:
    """No step, no loss, no number drawn from the generator, and no change of mode."""
    model, generator = model_of_ones().eval(), torch_generator(0)
    assert local_train(model, data(), PLAIN, generator, rates=[]) == TrainStats(0, 0.0)
    assert parameters_of(model).equal(parameters_of(model_of_ones()))
    assert generator.get_state().equal(torch_generator(0).get_state())
    assert not model.training


def test_inputs_are_not_changed() -> None:
    """The examples are as they were."""
    examples = data()
    local_train(model_of_ones(), examples, PLAIN, torch_generator(0))
    assert examples.x.equal(data().x)
    assert examples.y.equal(data().y)


# randomness


def test_same_generator_same_bits() -> None:
    """The same seed repeats every bit; another gives other batches and another model."""
    assert trained(seed=0).equal(trained(seed=0))
    assert not trained(seed=0).equal(trained(seed=1))


def test_global_generator_has_no_effect() -> None:
    """Neither is it read nor is it moved."""
    expected = trained()
    with torch.random.fork_rng():
        for seed in (1, 2):
            model = model_of_ones()
            torch.default_generator.manual_seed(seed)
            before = torch.get_rng_state()
            local_train(model, data(), PLAIN, torch_generator(0, "batches"))
            assert parameters_of(model).equal(expected)
            assert torch.get_rng_state().equal(before)


# errors


@pytest.mark.parametrize("rates", [None, [], [0.1] * 3])
def test_no_examples(rates: list[float] | None) -> None:
    """There is nothing to draw a batch from, however many steps are asked."""
    with pytest.raises(ValueError, match=r"^local training needs at least one example$"):
        local_train(model_of_ones(), data(0), PLAIN, torch_generator(0), rates=rates)


# a damaged answer


def test_a_step_in_the_wrong_direction_would_be_noticed() -> None:
    """The comparison with slow SGD fails where the sign of one step is turned."""
    start = parameters_of(model_of_ones())
    damaged = 2 * start - trained(num_steps=1)
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(damaged, slow_sgd(1, PLAIN), rtol=1e-5, atol=1e-6)


# local steps as a pure function


class Quadratic:
    """The engine of a written-out gradient: f(w) = ½ (w − m)² for each client m, and plain descent."""

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def gradients(self, parameters: Tensors, batch: tuple[Any, Tensor]) -> tuple[Tensors, Tensor]:
        (w,), (_, m) = parameters, batch
        return [w - m], ((w - m) ** 2 / 2).sum()

    def step(self, parameters: Tensors, gradients: Tensors, rate: float | None) -> Tensors:
        used = self._rate if rate is None else rate
        return [w - used * g for w, g in zip(parameters, gradients, strict=True)]


def test_local_steps_by_hand() -> None:
    """From w = 0 to m = 1 at rate ½: ½, then ¾; losses ½ and ⅛. With μ = 1 from the anchor 0: ½, then ½."""
    drawn = [(torch.zeros(1), torch.ones(1))] * 2
    found, losses = local_steps([torch.zeros(1)], drawn, None, Quadratic(0.5))
    assert (found[0].item(), losses.item()) == (0.75, 0.625)
    pulled = StepState([torch.zeros(1)], 1.0).adjustment
    assert local_steps([torch.zeros(1)], drawn, pulled, Quadratic(0.5))[0][0].item() == 0.5
    corrected = StepState(correction=[torch.tensor([-1.0])]).adjustment
    assert local_steps([torch.zeros(1)], drawn, corrected, Quadratic(0.5))[0][0].item() == 1.5


def test_local_steps_change_nothing_that_they_are_given() -> None:
    start, drawn = [torch.zeros(1)], [(torch.zeros(1), torch.ones(1))]
    state = StepState([torch.ones(1)], 0.5, [torch.ones(1)])
    local_steps(start, drawn, state.adjustment, Quadratic(0.5))
    assert (start[0].item(), state.anchor[0].item(), state.correction[0].item()) == (0.0, 1.0, 1.0)


def test_local_steps_at_rates_of_their_own() -> None:
    """From w = 0 to m = 1 at rates ½ and 1: ½, then 1."""
    drawn = [(torch.zeros(1), torch.ones(1))] * 2
    found, _ = local_steps([torch.zeros(1)], drawn, None, Quadratic(0.25), [0.5, 1.0])
    assert found[0].item() == 1.0


def test_clients_side_by_side_are_the_clients_one_by_one() -> None:
    """Along a first axis, with states of their own: what a batched engine makes of it."""
    m = torch.tensor([1.0, -2.0, 5.0])
    anchors, terms = torch.tensor([0.5, 0.0, 1.0]), torch.tensor([0.1, -0.2, 0.0])
    together = StepState([anchors], 0.3, [terms])
    found, _ = local_steps([torch.zeros(3)], [(m, m)] * 3, together.adjustment, Quadratic(0.2))
    for i in range(3):
        alone = StepState([anchors[i]], 0.3, [terms[i]])
        one, _ = local_steps([torch.zeros(())], [(m[i], m[i])] * 3, alone.adjustment, Quadratic(0.2))
        assert found[0][i].equal(one[0])


def test_the_engine_of_one_model_is_plain_descent() -> None:
    """Without momentum, the same as the written-out step on the gradients that autograd finds."""
    model, train = model_of_ones(), TrainSettings(learning_rate=0.1, momentum=0.0)
    parameters, examples = list(model.parameters()), data()
    loss = functional.cross_entropy(model(examples.x), examples.y)
    expected = [p - 0.1 * g for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True)]
    engine = OneModel(model, CLASSIFICATION, make_optimizer(parameters, train))
    found, total = local_steps(parameters, [(examples.x, examples.y)], None, engine)
    torch.testing.assert_close(list(found), expected)
    torch.testing.assert_close(total, loss)

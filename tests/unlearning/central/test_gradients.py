"""unlearning/central/gradients.py: sums and rows of gradients against one example at a time."""

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn
from torch.nn import functional

from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator
from tests.strategies.other_tasks import Regression
from unlearning.central.gradients import ExampleSum, Objective, gradient_blocks, gradient_sum
from unlearning.central.parameters import copied, flat_parameters, trainable

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]


HALF_SQUARES = Objective(Regression())


def line(slope: float, intercept: float) -> nn.Module:
    model = nn.Linear(1, 1).double()
    with torch.no_grad():
        model.weight.fill_(slope)
        model.bias.fill_(intercept)
    return model


def slow_rows(model: nn.Module, examples: Examples) -> Tensor:
    """One ordinary backward pass per example."""
    model = model.eval()
    rows = []
    for x, y in zip(examples.x, examples.y, strict=True):
        loss = functional.cross_entropy(model(x.unsqueeze(0)), y.unsqueeze(0))
        pieces = torch.autograd.grad(loss, list(trainable(model).values()))
        rows.append(torch.cat([piece.reshape(-1) for piece in pieces]))
    return torch.stack(rows)


def images(num_examples: int) -> Examples:
    x = torch.randn((num_examples, 1, 6, 6), generator=torch_generator(5, "images"))
    return TensorExamples(x, torch.arange(num_examples) % 3)


# by hand


def test_gradient_sum_by_hand() -> None:
    """Line 2x + 1 and loss ½(2x + 1 − y)².

    (x, y) = (1, 1): residual 2, gradient (2·1, 2). (3, 8): residual −1, gradient (−1·3, −1). Sum (−1, 1).
    """
    examples = TensorExamples(torch.tensor([[1.0], [3.0]], dtype=torch.float64), torch.tensor([1, 8]))
    total = gradient_sum(line(2.0, 1.0), examples, HALF_SQUARES)
    assert total.total.tolist() == [-1.0, 1.0]
    assert total.count == 2
    assert total.mean.tolist() == [-0.5, 0.5]


def test_gradient_rows_by_hand() -> None:
    """The two gradients of the example above, one per row."""
    examples = TensorExamples(torch.tensor([[1.0], [3.0]], dtype=torch.float64), torch.tensor([1, 8]))
    (rows,) = gradient_blocks(line(2.0, 1.0), examples, HALF_SQUARES)
    assert rows.tolist() == [[2.0, 2.0], [-3.0, -1.0]]


# against the slow reference


@pytest.mark.parametrize("block_size", [None, 1, 4])
def test_rows_are_those_of_single_examples(
    block_size: int | None, build_net: BuildNet, make_blobs: MakeBlobs
) -> None:
    model, examples = build_net(4, 5, 3), make_blobs(10)
    rows = torch.cat(list(gradient_blocks(model, examples, block_size=block_size)))
    torch.testing.assert_close(rows, slow_rows(model, examples), rtol=1e-12, atol=1e-14)


def test_rows_of_a_convolutional_network(build_conv: BuildNet) -> None:
    model, examples = build_conv(), images(7)
    rows = torch.cat(list(gradient_blocks(model, examples, block_size=3)))
    torch.testing.assert_close(rows, slow_rows(model, examples), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_the_sum_is_that_of_the_rows(batch_size: int, build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, examples = build_net(4, 5, 3), make_blobs(10)
    total = gradient_sum(model, examples, batch_size=batch_size).total
    torch.testing.assert_close(total, slow_rows(model, examples).sum(dim=0), rtol=1e-12, atol=1e-13)


# properties


@given(cuts=st.lists(st.integers(0, 12), max_size=4))
def test_clients_add_up_to_the_whole(cuts: list[int]) -> None:
    """Whole numbers are added without rounding, so the federated sum is the central one to the bit."""
    x = torch.randint(-9, 10, (12, 1), generator=torch_generator(3)).double()
    examples = TensorExamples(x, torch.arange(12) - 6)
    edges = [0, *sorted(cuts), 12]
    clients = [TensorExamples(examples.x[a:b], examples.y[a:b]) for a, b in itertools.pairwise(edges)]
    model = line(3.0, -2.0)
    joined = ExampleSum.join(gradient_sum(model, client, HALF_SQUARES) for client in clients)
    whole = gradient_sum(model, examples, HALF_SQUARES)
    assert torch.equal(joined.total, whole.total)
    assert joined.count == whole.count == 12


def test_clients_add_up_to_the_whole_for_cross_entropy(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, examples = build_net(4, 5, 3), make_blobs(30)
    clients = [examples.subset(range(start, 30, 3)) for start in range(3)]
    joined = ExampleSum.join(gradient_sum(model, client) for client in clients)
    torch.testing.assert_close(joined.mean, gradient_sum(model, examples).mean, rtol=1e-12, atol=1e-14)


def test_the_sum_over_nothing_is_zero(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, nothing = build_net(4, 3), make_blobs(3).subset([])
    assert gradient_sum(model, nothing).total.tolist() == [0.0] * 15
    assert list(gradient_blocks(model, nothing)) == []


def test_the_model_is_not_altered(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model = build_net(4, 3).train()
    before = flat_parameters(model)
    gradient_sum(model, make_blobs(6))
    list(gradient_blocks(model, make_blobs(6)))
    assert model.training
    assert torch.equal(flat_parameters(model), before)
    assert all(p.grad is None for p in model.parameters())


def test_gradients_are_those_of_eval_mode(make_blobs: MakeBlobs) -> None:
    """Dropout is off, whatever mode the model is in."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).double().train()
    examples = make_blobs(6)
    total, (rows,) = gradient_sum(model, examples), gradient_blocks(model, examples)
    expected = slow_rows(copied(model), examples)
    torch.testing.assert_close(total.total, expected.sum(dim=0))
    torch.testing.assert_close(rows, expected)


# errors


def test_the_mean_over_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="mean over 0 examples is not defined"):
        _ = ExampleSum(torch.zeros(2, dtype=torch.float64), 0).mean

"""The steps of many models at once."""

from typing import Literal

import pytest
import torch
from torch import nn

from strategies.client.settings import TrainSettings
from strategies.client.stacked_steps import as_tensors, bare_step, clipped_each
from strategies.client.training import make_optimizer
from strategies.core.seeds import torch_generator


def test_gradients_are_clipped_model_by_model() -> None:
    """Norms 5 and 0.5 to at most 1: the first is divided by 5, the second stays."""
    found = clipped_each([torch.tensor([[3.0], [0.3]]), torch.tensor([[4.0], [0.4]])], 1.0)
    torch.testing.assert_close(found, [torch.tensor([[0.6], [0.3]]), torch.tensor([[0.8], [0.4]])])


def test_tensors_are_views_of_their_rows() -> None:
    """Two models of a 2×2 matrix, a number and a vector of two; what is written there is in the rows."""
    rows = torch.arange(14.0).view(2, 7)
    matrix, number, vector = as_tensors(rows, [torch.Size((2, 2)), torch.Size(()), torch.Size((2,))])
    assert matrix.tolist() == [[[0, 1], [2, 3]], [[7, 8], [9, 10]]]
    assert number.tolist() == [4, 11]
    assert vector.tolist() == [[5, 6], [12, 13]]
    vector.zero_()
    assert rows[:, 5:].tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_a_bare_step_is_the_optimisers(optimizer: Literal["sgd", "adam", "adamw", "rmsprop"]) -> None:
    """Two steps of each, to the bit; torch's own step is wrapped, and the bare one is not."""
    settings = TrainSettings(optimizer=optimizer, learning_rate=0.1)
    gradients = torch.randn(2, 5, generator=torch_generator(0, "gradients"))
    ends = []
    for bare in (False, True):
        parameter = nn.Parameter(torch.ones(5))
        own = make_optimizer([parameter], settings)
        step = bare_step(own) if bare else own.step
        for gradient in gradients:
            parameter.grad = gradient
            with torch.no_grad():
                step()
        ends.append(parameter.detach())
        assert hasattr(step, "__wrapped__") != bare
    assert ends[0].equal(ends[1])
    assert not ends[0].equal(torch.ones(5))

"""The steps of many models at once."""

import torch

from strategies.client.stacked_steps import as_tensors, clipped_each


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

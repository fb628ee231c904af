"""Threads of torch."""

import pytest
import torch

from strategies.threads import one_thread


def test_one_thread_inside_and_as_many_as_before_afterwards() -> None:
    """Also after an error."""
    torch.set_num_threads(2)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == 2

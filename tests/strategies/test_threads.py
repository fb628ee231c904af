"""Threads of torch."""

from collections.abc import Iterator

import pytest
import torch

from strategies.threads import one_thread


@pytest.fixture
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
def test_one_thread_inside_and_as_many_as_before_afterwards() -> None:
    """Also after an error."""
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == 2

"""How many threads torch computes with on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside, and with as many as before afterwards.

    Mini-batches of small models gain nothing from more threads, and lose much on a busy machine, where
    threads wait for each other after every operation. And sums of floats depend on how many threads share
    them: with one, the result is the same on every number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

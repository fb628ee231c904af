"""Which of a client's examples it holds out for a test of its own.

The choice is a function of client-id and position alone, so that it is the same in every run, in a retraining
under another seed, and after data were appended; and the server can tell, without asking, that a position
was held out.
"""

import math

import torch
from torch import Tensor

from strategies.core.kept import kept_within
from strategies.core.seeds import torch_generator

_BLOCK = 20
"""Positions among which a share is held out as exactly as whole examples allow."""
_KEPT_BYTES = 2**24
"""Of clients' answers that a process keeps, a byte for each example."""


@kept_within(_KEPT_BYTES, torch.numel)
def held_out(share: float, client_id: str, count: int) -> Tensor:
    """Return which of a client's examples are held out, never the first one.

    Parameters
    ----------
    share
        In [0, 1): of 20 examples in a row, ``20 * share``, rounded so that it holds over all of them.

    Returns
    -------
    Tensor
        Shape [count], bool; kept, so not to be changed. What it says of a position does not depend on
        `count`.

    Examples
    --------
    >>> int(held_out(0.2, "7", 100).sum())
    20
    >>> held_out(0.2, "7", 100)[:30].equal(held_out(0.2, "7", 30))
    True
    """
    if not share:
        return torch.zeros(count, dtype=torch.bool)
    chosen = [_in_block(share, client_id, block) for block in range(-(-count // _BLOCK))]
    return torch.cat([torch.zeros(0, dtype=torch.bool), *chosen])[:count]


def is_held_out(share: float, client_id: str, position: int) -> bool:
    """Return whether one of a client's examples is held out."""
    if not share:
        return False
    block, place = divmod(position, _BLOCK)
    return bool(_in_block(share, client_id, block)[place])


def most_held_out(share: float, trained: int) -> int:
    """Return an upper bound on the held-out examples of a client, from the number that it trains on.

    Examples
    --------
    >>> trained = 100 - int(held_out(0.2, "7", 100).sum())
    >>> 20 <= most_held_out(0.2, trained) <= 20 + 20
    True
    """
    return math.ceil(trained * share / (1 - share)) + _BLOCK if share else 0


def _in_block(share: float, client_id: str, block: int) -> Tensor:
    ends = [int((block + side) * _BLOCK * share + 1e-9) for side in (0, 1)]
    generator = torch_generator(0, "local-test", client_id, block)
    mask = torch.zeros(_BLOCK, dtype=torch.bool)
    mask[torch.randperm(_BLOCK, generator=generator)[: ends[1] - ends[0]]] = True
    if block == 0:
        mask[0] = False  # A client has at least one example to train on
    return mask

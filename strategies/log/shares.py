"""Which clients' weights are divided together: all of a round, or those of a group that is trained apart."""

from collections.abc import Callable

ShareOf = Callable[[str], int]
"""From a client-id to the share that its weight belongs to."""


def in_one(client_id: str) -> int:
    """Return the share of every client where there is but one."""
    return 0


def by_their_sum(share: int) -> None:
    """Say of every share that its weights are divided by their sum."""

"""Which group a client trains in where groups are trained apart; needs no torch.

A client's group follows from its client-id alone, so that a client who leaves, or comes, moves no other.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256


def group_of(client_id: str, groups: int) -> int:
    """Return a client's group, from 0.

    Client-ids that are whole numbers are dealt out in turn; any other goes by its SHA-256.

    Parameters
    ----------
    groups
        How many there are, at least 1; neutral 1.

    Examples
    --------
    >>> [group_of(client_id, 3) for client_id in ("0", "1", "2", "3")]
    [0, 1, 2, 0]
    """
    if client_id.isascii() and client_id.isdecimal():
        return int(client_id) % groups
    return int.from_bytes(sha256(client_id.encode()).digest()[:8]) % groups


def grouped(client_ids: Iterable[str], groups: int) -> Mapping[int, list[str]]:
    """Return the client-ids of each group that has any, by group, in their order.

    Examples
    --------
    >>> grouped(["0", "2", "3"], 2)
    {0: ['0', '2'], 1: ['3']}
    """
    found: dict[int, list[str]] = {}
    for client_id in client_ids:
        found.setdefault(group_of(client_id, groups), []).append(client_id)
    return dict(sorted(found.items()))


def empty_groups(client_ids: Iterable[str], groups: int) -> list[int]:
    """Return the groups that none of the clients belongs to."""
    held = grouped(client_ids, groups)
    return [group for group in range(groups) if group not in held]

"""What both halves of secure aggregation agree on: the keys of their messages, and what is authenticated.

All entries are in the record ``config``. Clients stand under numbers from 1, which the server gives to those
that take part in one sum; lists are in the order of the numbers that the same message names.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

from strategies.layers.secagg.shamir import SECRET_BYTES, SHARE_BYTES

SESSION = "secagg-session"
"""bytes, server to client: names one sum; 16 bytes that were never used before."""
OWN = "secagg-own"
"""int, server to client: the number of the client that the message is for."""
NUMBERS = "secagg-numbers"
"""list[int], server to client: who takes part, ascending, the client itself included."""
THRESHOLD = "secagg-threshold"
"""int, server to client: how many must stay to the end."""
CIPHER_KEY, MASK_KEY = "secagg-cipher-key", "secagg-mask-key"
"""bytes, client to server: X25519 public keys, for what clients tell each other and for their masks."""
CIPHER_KEYS, MASK_KEYS = "secagg-cipher-keys", "secagg-mask-keys"
"""list[bytes], server to client: those of all."""
SHARES = "secagg-shares"
"""list[bytes], client to server and on to the others: what each other client is told, encrypted."""
COMMITMENTS = "secagg-commitments"
"""list[bytes], client to server and on to the others: SHA-256 of the two shares of each client."""
SEED_HASH = "secagg-seed-hash"
"""bytes, client to server: SHA-256 of the seed of its own mask."""
COMPLAINTS = "secagg-complaints"
"""list[int], client to server, with the masked vector: whose shares for it were not what they should be."""
SURVIVORS, DROPPED = "secagg-survivors", "secagg-dropped"
"""list[int], server to client: whose masked vectors came, and whose did not."""
OPENED = "secagg-opened"
"""list[bytes], client to server: shares of survivors' seeds, then of the others' keys; empty: it has none."""

SESSION_BYTES = 16


def needed(threshold: float, count: int) -> int:
    """Return how many clients must stay to the end: the given share, and at least ⌊2n/3⌋ + 1 of n.

    A server that tells clients different stories of who was lost has at most n(n − t) shares of keys opened,
    and needs t(t − 1) of them for the masks of one client in a sum of t. With t ≥ ⌊2n/3⌋ + 1 it has too few;
    with ⌈2n/3⌉ they are enough at n = 3 and n = 6. So three clients bear no loss.

    Examples
    --------
    >>> [needed(0.67, n) for n in (1, 2, 3, 4, 5, 6, 10)]
    [2, 2, 3, 3, 4, 5, 7]
    >>> needed(0.9, 10)
    9
    """
    return max(2, 2 * count // 3 + 1, math.ceil(threshold * count - 1e-9))


def mask_context(session: bytes) -> bytes:
    """Return what the seed of a pair's mask is bound to."""
    return b"lethe secagg mask " + session


def cipher_context(session: bytes) -> bytes:
    """Return what the key of a pair's messages is bound to."""
    return b"lethe secagg shares " + session


def associated(session: bytes, sender: int, receiver: int) -> bytes:
    """Return what is authenticated with a message between clients."""
    return b"%s from %d to %d" % (session, sender, receiver)


def commitment(share: bytes) -> bytes:
    """Return SHA-256 of a share or a seed; both are too random to be guessed from it."""
    return hashlib.sha256(share).digest()


def commitments(key_share: bytes, seed_share: bytes) -> bytes:
    """Return what a client commits to for one other."""
    return commitment(key_share) + commitment(seed_share)


def byte_strings(config: Mapping[str, Any], key: str, count: int, sizes: frozenset[int]) -> list[bytes]:
    """Return a list of byte strings of a message.

    `count` is their number, and `sizes` are the lengths that each may have.

    Raises
    ------
    ValueError
        If it is not like that.
    """
    values = config.get(key)
    if not isinstance(values, list) or len(values) != count:
        raise ValueError(f"'{key}' is not a list of {count}")
    if not all(isinstance(value, bytes) and len(value) in sizes for value in values):
        raise ValueError(f"'{key}' holds something else than {' or '.join(map(str, sorted(sizes)))} bytes")
    return values


def byte_string(config: Mapping[str, Any], key: str, size: int) -> bytes:
    """Return a byte string of a message; ValueError if there is none of that length."""
    value = config.get(key)
    if not isinstance(value, bytes) or len(value) != size:
        raise ValueError(f"'{key}' is not {size} bytes")
    return value


def numbers(config: Mapping[str, Any], key: str) -> list[int]:
    """Return an ascending list of clients' numbers of a message; ValueError if it is something else."""
    values = config.get(key, [])
    if not isinstance(values, list) or not all(type(value) is int and value > 0 for value in values):
        raise ValueError(f"'{key}' is not a list of clients' numbers")
    if sorted(set(values)) != values:
        raise ValueError(f"'{key}' names a client twice, or is not in order")
    return values


NONCE_BYTES, TAG_BYTES = 12, 16
SEALED_BYTES = NONCE_BYTES + 2 * SHARE_BYTES + TAG_BYTES
"""Length of what a client is told: a nonce, its shares of a key and of a seed, and a tag."""
COMMITMENTS_BYTES = 2 * SECRET_BYTES
